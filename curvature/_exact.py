import jax
import jax.numpy as jnp
import optax

from ._batch_statistics import BatchStatistics
from ._covariance import Covariance, check_covariance, reduce_diagonal
from ._derivatives import Differentiation, push_forward, resolve
from ._mapped_axis import AxisName, as_local
from ._moments import Moments, merge_moments, merge_over_axis, moments, variance_of_mean
from ._outer_products import map_examples
from ._per_example import PerExample
from ._tree import PyTree
from ._validation import per_example_losses


def exact(
    value_fn: PerExample,
    params: PyTree,
    displacement: PyTree,
    covariance: Covariance = "scalar",
    differentiation: Differentiation = "auto",
    axis_name: AxisName | None = None,
) -> BatchStatistics:
    """Exact statistics of a batch from every example's gradient and Hessian-vector product.

        g_i = ∇ℓ_i(θ),  b_i = ∇²ℓ_i(θ) δ;   Σ = Cov_i(g_i)/n,  Q = Cov_i(b_i)/n

    `vmap` over the examples of a chunk, moments merged over chunks: memory is
    O(chunk_size · D), and the numbers do not depend on the chunk size. Gradients of dense layers,
    outer products of two vectors, are never formed: matrix products of their factors give the
    moments, in O(D + chunk_size · width) memory.

    Args:
      value_fn: made by `per_example`, whose `chunk_size` bounds the memory.
      params: θ, a pytree of floating-point arrays.
      displacement: δ, a pytree like `params`, in parameter units.
      covariance: structure of the variances, `"scalar"`, `"per_leaf"` or `"diagonal"`.
      differentiation: of each gradient along δ: `"auto"`, `"forward"`, `"reverse"` or
        `"differences"`.
      axis_name: mapped axis over which the batch is split, or None.

    Returns:
      `BatchStatistics`.

    Raises:
      TypeError: if `value_fn` was not made by `per_example`.

    Example:
      >>> import jax.numpy as jnp
      >>> from mekax.curvature import per_example
      >>> value_fn = per_example(lambda w, x: (w - x) ** 2 / 2, jnp.array([0.0, 2.0]))
      >>> stats = exact(value_fn, jnp.array(3.0), jnp.array(1.0))
      >>> float(stats.gradient), float(stats.gradient_variance), float(stats.product)
      (2.0, 1.0, 1.0)

    Source: Chen et al. (2020), arXiv 2011.04803, section 3.
    """
    check_covariance(covariance)
    if not isinstance(value_fn, PerExample):
        raise TypeError(
            "mekax: exact statistics need the loss of a single example, so expected a value_fn "
            f"made by mekax.curvature.per_example(loss_fn, batch), got {type(value_fn).__name__}. "
            "Build it that way, or use statistics='sketched'."
        )
    tangent = optax.tree.cast_like(displacement, params)
    params, tangent = as_local((params, tangent), axis_name)
    mode = resolve(value_fn, params, tangent, differentiation)

    def observe(example: PyTree) -> tuple:
        def loss(point: PyTree) -> jax.Array:
            one = per_example_losses(lambda p: value_fn.loss_fn(p, example))(point)
            return jnp.squeeze(one)

        (value, gradient), (slope, product) = push_forward(
            jax.value_and_grad(loss), params, tangent, mode
        )
        return value, gradient, slope, product

    summary = merge_over_axis(_moments_over_chunks(observe, value_fn), axis_name)
    value, gradient, slope, product = summary.mean
    variances = variance_of_mean(summary)
    return BatchStatistics(
        value=value,
        value_variance=variances[0],
        gradient=gradient,
        gradient_variance=reduce_diagonal(variances[1], covariance),
        product=product,
        product_variance=reduce_diagonal(variances[3], covariance),
        slope=slope,
        slope_variance=variances[2],
    )


def _moments_over_chunks(observe, value_fn: PerExample) -> Moments:
    """Merge the moments of `observe(example)` over the chunks of the batch."""
    count = value_fn.count
    chunk = min(value_fn.chunk_size or count, count)

    def of_chunk(examples: PyTree) -> Moments:
        return moments(map_examples(observe, examples))

    def part(start: int, stop: int) -> PyTree:
        return jax.tree.map(lambda x: x[start:stop], value_fn.batch)

    summary = of_chunk(part(0, chunk))
    whole = count // chunk
    if whole > 1:
        rest = jax.tree.map(
            lambda x: jnp.reshape(x, (whole - 1, chunk, *x.shape[1:])), part(chunk, whole * chunk)
        )
        summary, _ = jax.lax.scan(
            lambda carry, examples: (merge_moments(carry, of_chunk(examples)), None), summary, rest
        )
    if whole * chunk < count:
        summary = merge_moments(summary, of_chunk(part(whole * chunk, count)))
    return summary
