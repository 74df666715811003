import jax
import jax.numpy as jnp

from ._batch_statistics import BatchStatistics
from ._covariance import Covariance, check_covariance, reduce_diagonal
from ._moments import mean_and_variance
from ._probes import rademacher_like
from ._products import gradient_and_product
from ._trees import PyTree, cast_like, size, widen
from ._validation import ValueFn, per_example_losses


def sketched(
    value_fn: ValueFn,
    params: PyTree,
    displacement: PyTree,
    key: jax.Array,
    covariance: Covariance = "scalar",
) -> BatchStatistics:
    """Statistics of a batch with means exact and variances sketched by random ±1 probes.

    The scalar variances probe the *parameters*: with independent z_j = ±1,

        E_z Var_i(g_i·z)/n = tr Σ,    E_z Var_i(z·H_i δ)/n = tr Q,

    both from one nested forward-mode pass along (δ, z), in O(n) memory. The structured ones
    probe the *examples*: with independent ε_i = ±1 and c_i = ε_i − mean(ε),

        E_ε (Σ_i c_i g_i)² / (n(n − 1)) = diag Σ,    likewise Σ_i c_i H_i δ for diag Q,

    which is one more gradient and Hessian-vector product, of the loss Σ_i c_i ℓ_i. Either way
    nothing of size n·D is formed, any `value_fn` will do, and the estimates are unbiased: smooth
    them over steps.

    Args:
      value_fn: parameters to per-example losses, shape (n,), or to a scalar (all variances 0).
      params: θ, a pytree of floating-point arrays.
      displacement: δ, a pytree like `params`, in parameter units.
      key: PRNG key of the probe.
      covariance: structure of the variances, `"scalar"`, `"per_leaf"` or `"diagonal"`.

    Returns:
      `BatchStatistics`.

    Raises:
      ValueError, TypeError: if `value_fn` does not return losses of shape (n,) or a scalar.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> value_fn = lambda w: (w - jnp.array([0.0, 2.0])) ** 2 / 2
      >>> stats = sketched(value_fn, jnp.array([3.0]), jnp.array([1.0]), jax.random.key(0))
      >>> stats.gradient.tolist(), float(stats.gradient_variance), stats.product.tolist()
      ([2.0], 1.0, [1.0])

    Source: Hutchinson (1989) for the trace; Chen et al. (2020), arXiv 2011.04803, section 3, for
    the quantities.
    """
    check_covariance(covariance)
    tangent = cast_like(displacement, params)
    probe = _probe_parameters if covariance == "scalar" else _probe_examples
    losses, slopes, gradient_variance, product_variance = probe(
        per_example_losses(value_fn), params, tangent, key, covariance
    )
    value, value_variance = mean_and_variance(losses)
    slope, slope_variance = mean_and_variance(slopes)
    gradient, product = gradient_and_product(value_fn, params, tangent)
    return BatchStatistics(
        value=value,
        value_variance=value_variance,
        gradient=gradient,
        gradient_variance=gradient_variance,
        product=product,
        product_variance=product_variance,
        slope=slope,
        slope_variance=slope_variance,
    )


def _probe_parameters(losses_fn, params, tangent, key, covariance):
    """Scalar variances from one nested forward pass along the displacement and a ±1 probe."""
    del covariance
    probe = rademacher_like(key, params)

    def along_probe(point):
        return jax.jvp(losses_fn, (point,), (probe,))

    (losses, gradients), (slopes, products) = jax.jvp(along_probe, (params,), (tangent,))
    dimension = size(params)
    gradient_variance = mean_and_variance(gradients)[1] / dimension
    product_variance = mean_and_variance(products)[1] / dimension
    return losses, slopes, gradient_variance, product_variance


def _probe_examples(losses_fn, params, tangent, key, covariance):
    """Diagonal variances from the gradient of a randomly signed, centered sum of the losses."""

    def signed_gradient(point):
        losses, pull_back = jax.vjp(losses_fn, point)
        signs = jax.random.rademacher(key, losses.shape, losses.dtype)
        (gradient,) = pull_back(signs - jnp.mean(signs))
        return losses, gradient

    (losses, gradient), (slopes, product) = jax.jvp(signed_gradient, (params,), (tangent,))
    count = losses.shape[0]
    scale = 1.0 / (count * max(count - 1, 1))

    def variance(tree):
        return reduce_diagonal(
            jax.tree.map(lambda x: jnp.square(x) * scale, widen(tree)), covariance
        )

    return losses, slopes, variance(gradient), variance(product)
