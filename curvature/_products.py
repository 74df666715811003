import jax
import jax.numpy as jnp

from ._trees import PyTree, cast_like, widen
from ._validation import ValueFn, per_example_losses


def gradient_and_product(
    value_fn: ValueFn, params: PyTree, direction: PyTree
) -> tuple[PyTree, PyTree]:
    """Mean gradient and mean Hessian-vector product of a batch, by forward over reverse mode.

        g = (1/n) Σ_i ∇ℓ_i(θ),    Bv = (1/n) Σ_i ∇²ℓ_i(θ) v

    One pass costs about two gradients, and XLA shares the gradient with one that the caller
    computes in the same program.

    Args:
      value_fn: parameters to per-example losses, shape (n,), or to a scalar.
      params: θ, a pytree of floating-point arrays.
      direction: v, a pytree like `params`, in parameter units; cast to the dtypes of `params`.

    Returns:
      `(g, Bv)`, pytrees like `params`, in float32 or wider; loss / parameter and, for v in
      parameter units, loss / parameter too.

    Raises:
      ValueError, TypeError: if `value_fn` does not return losses of shape (n,) or a scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> g, Bv = gradient_and_product(lambda w: w**2, jnp.array([3.0]), jnp.array([1.0]))
      >>> g.tolist(), Bv.tolist()
      ([6.0], [2.0])

    Source: Pearlmutter (1994); Chen et al. (2020), arXiv 2011.04803, section 3.
    """
    losses = per_example_losses(value_fn)

    def mean_loss(point: PyTree) -> jax.Array:
        return jnp.mean(widen(losses(point)))

    gradient, product = jax.jvp(jax.grad(mean_loss), (params,), (cast_like(direction, params),))
    return widen(gradient), widen(product)


def hvp(value_fn: ValueFn, params: PyTree, direction: PyTree) -> PyTree:
    """Mean Hessian-vector product Bv of a batch; see `gradient_and_product`.

    Example:
      >>> import jax.numpy as jnp
      >>> hvp(lambda w: w[0] * w[1], jnp.array([1.0, 2.0]), jnp.array([1.0, 0.0])).tolist()
      [0.0, 1.0]
    """
    return gradient_and_product(value_fn, params, direction)[1]
