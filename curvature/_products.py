import jax
import jax.numpy as jnp

from ._mapped_axis import AxisName, as_local, mean_over_axis
from ._push_forward import Differentiation, push_forward
from ._trees import PyTree, cast_like, widen
from ._validation import ValueFn, per_example_losses


def gradient_and_product(
    value_fn: ValueFn,
    params: PyTree,
    direction: PyTree,
    differentiation: Differentiation = "forward",
    axis_name: AxisName | None = None,
) -> tuple[PyTree, PyTree]:
    """Mean gradient and mean Hessian-vector product of a batch, by forward over reverse mode.

        g = (1/n) Σ_i ∇ℓ_i(θ),    Bv = (1/n) Σ_i ∇²ℓ_i(θ) v

    One pass costs about two gradients, and XLA shares the gradient with one that the caller
    computes in the same program.

    Args:
      value_fn: parameters to per-example losses, shape (n,), or to a scalar.
      params: θ, a pytree of floating-point arrays.
      direction: v, a pytree like `params`, in parameter units; cast to the dtypes of `params`.
      differentiation: of the gradient along v: `"forward"`, or, for models without a forward-mode
        rule, `"reverse"` (reverse over reverse) or `"differences"` (of two gradients).
      axis_name: mapped axis over which the batch is split into equal parts, or None.

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

    tangent = cast_like(direction, params)
    params, tangent = as_local((params, tangent), axis_name)
    both = push_forward(jax.grad(mean_loss), params, tangent, differentiation)
    return mean_over_axis(widen(both), axis_name)


def hvp(
    value_fn: ValueFn,
    params: PyTree,
    direction: PyTree,
    differentiation: Differentiation = "forward",
    axis_name: AxisName | None = None,
) -> PyTree:
    """Mean Hessian-vector product Bv of a batch; see `gradient_and_product`.

    Example:
      >>> import jax.numpy as jnp
      >>> hvp(lambda w: w[0] * w[1], jnp.array([1.0, 2.0]), jnp.array([1.0, 0.0])).tolist()
      [0.0, 1.0]
    """
    return gradient_and_product(value_fn, params, direction, differentiation, axis_name)[1]
