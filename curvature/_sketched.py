import jax
import jax.numpy as jnp
import optax

from ._batch_statistics import BatchStatistics
from ._covariance import Covariance, check_covariance, reduce_diagonal
from ._derivatives import Differentiation, Mode, gradient_and_product, push_forward, resolve
from ._mapped_axis import AxisName, as_local, axis_size
from ._moments import mean_and_variance
from ._probes import rademacher_like
from ._tree import PyTree, size, widen
from ._validation import ValueFn, per_example_losses


def sketched(
    value_fn: ValueFn,
    params: PyTree,
    displacement: PyTree,
    key: jax.Array,
    covariance: Covariance = "scalar",
    differentiation: Differentiation = "auto",
    axis_name: AxisName | None = None,
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
      differentiation: `"auto"`: forward mode, or differences for models without a
        forward-mode rule; `"forward"`, `"reverse"`, `"differences"`.
      axis_name: mapped axis over which the batch is split into equal parts, or None; the key
        must be the same on all devices.

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
    tangent = optax.tree.cast_like(displacement, params)
    probe = _probe_parameters if covariance == "scalar" else _probe_examples
    local_params, local_tangent = as_local((params, tangent), axis_name)
    mode = resolve(value_fn, local_params, local_tangent, differentiation)
    means = gradient_and_product(value_fn, params, tangent, mode, axis_name)
    losses, slopes, gradient_variance, product_variance = probe(
        per_example_losses(value_fn),
        local_params,
        local_tangent,
        key,
        covariance,
        mode,
        axis_name,
    )
    value, value_variance = mean_and_variance(losses, axis_name)
    slope, slope_variance = mean_and_variance(slopes, axis_name)
    return BatchStatistics(
        value=value,
        value_variance=value_variance,
        gradient=means[0],
        gradient_variance=gradient_variance,
        product=means[1],
        product_variance=product_variance,
        slope=slope,
        slope_variance=slope_variance,
    )


def _probe_parameters(losses_fn, params, tangent, key, covariance, mode: Mode, axis_name):
    """Scalar variances from one nested forward pass along the displacement and a ±1 probe."""
    del covariance
    probe = as_local(rademacher_like(key, params), axis_name)

    def along_probe(point):
        return push_forward(losses_fn, point, probe, mode)

    (losses, gradients), (slopes, products) = push_forward(along_probe, params, tangent, mode)
    dimension = size(params)
    gradient_variance = mean_and_variance(gradients, axis_name)[1] / dimension
    product_variance = mean_and_variance(products, axis_name)[1] / dimension
    return losses, slopes, gradient_variance, product_variance


def _probe_examples(losses_fn, params, tangent, key, covariance, mode: Mode, axis_name):
    """Diagonal variances from the gradient of a randomly signed, centered sum of the losses."""

    def signed_gradient(point):
        losses, pull_back = jax.vjp(losses_fn, point)
        (gradient,) = pull_back(_centered_signs(key, losses, axis_name))
        return (losses, gradient)

    (losses, gradient), (slopes, product) = push_forward(signed_gradient, params, tangent, mode)
    count = losses.shape[0] * axis_size(axis_name)
    scale = 1.0 / (count * max(count - 1, 1))

    def variance(tree):
        tree = widen(tree)
        if axis_name is not None:
            tree = jax.lax.psum(tree, axis_name)
        return reduce_diagonal(jax.tree.map(lambda x: jnp.square(x) * scale, tree), covariance)

    return losses, slopes, variance(gradient), variance(product)


def _centered_signs(key, losses, axis_name):
    """Random signs of all examples less their mean; each device takes those of its own."""
    count = losses.shape[0]
    signs = jax.random.rademacher(key, (count * axis_size(axis_name),), losses.dtype)
    signs = signs - jnp.mean(signs)
    if axis_name is None:
        return signs
    return jax.lax.dynamic_slice_in_dim(signs, jax.lax.axis_index(axis_name) * count, count)
