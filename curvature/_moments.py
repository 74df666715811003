"""Mean and variance of per-example quantities, mergeable over chunks of a batch.

The normalization used everywhere in mekax is stated here once. Over n examples,

    variance of the batch mean = (1/n) · (1/(n − 1)) · Σ_i (x_i − mean)²,

that is, the unbiased (ddof = 1) variance over examples, divided by n. One example has no
variance: for n = 1 it is 0, so a deterministic objective is the noise-free limit of the same code.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ._mapped_axis import AxisName
from ._outer_products import OuterProducts, is_outer_products
from ._tree import PyTree, widen


class Moments(NamedTuple):
    """Sufficient statistics of a set of examples.

    Attributes:
      examples: their number n, a scalar.
      mean: tree of means over the examples.
      scatter: tree of Σ_i (x_i − mean)², elementwise.
    """

    examples: jax.Array
    mean: PyTree
    scatter: PyTree


def moments(samples: PyTree) -> Moments:
    """Moments of samples stacked along the leading axis of every leaf.

    Args:
      samples: tree of arrays of shape (n, …), n ≥ 1, or of `OuterProducts`.

    Returns:
      `Moments` in float32 or wider.

    Example:
      >>> import jax.numpy as jnp
      >>> summary = moments(jnp.array([1.0, 3.0]))
      >>> float(summary.mean), float(summary.scatter)
      (2.0, 2.0)
    """
    samples = widen(samples)
    leaves = jax.tree.leaves(samples, is_leaf=is_outer_products)
    examples = leaves[0].examples if is_outer_products(leaves[0]) else leaves[0].shape[0]
    count = jnp.asarray(examples, jnp.result_type(*jax.tree.leaves(samples)))

    def mean(x: jax.Array | OuterProducts) -> jax.Array:
        return x.sum() / count if isinstance(x, OuterProducts) else jnp.mean(x, axis=0)

    def scatter(x: jax.Array | OuterProducts) -> jax.Array:
        if isinstance(x, OuterProducts):
            rest = x.centered()
            square = rest.sum_of_squares() - jnp.square(rest.sum()) / count
            return jnp.maximum(square, 0)
        return jnp.sum(jnp.square(x - jnp.mean(x, axis=0, keepdims=True)), axis=0)

    return Moments(
        count,
        jax.tree.map(mean, samples, is_leaf=is_outer_products),
        jax.tree.map(scatter, samples, is_leaf=is_outer_products),
    )


def merge_moments(left: Moments, right: Moments) -> Moments:
    """Moments of the union of two disjoint sets of examples, exact for any split.

    With Δ = mean₂ − mean₁ and n = n₁ + n₂:

        mean = mean₁ + Δ·n₂/n,    scatter = scatter₁ + scatter₂ + Δ²·n₁·n₂/n.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([1.0, 2.0, 4.0, 9.0])
      >>> merged = merge_moments(moments(x[:1]), moments(x[1:]))
      >>> float(merged.mean), float(merged.scatter)
      (4.0, 38.0)

    Source: Chan, Golub & LeVeque (1983), equation 2.1.
    """
    count = left.examples + right.examples
    weight = right.examples / count
    mean = jax.tree.map(lambda a, b: a + (b - a) * weight, left.mean, right.mean)
    scatter = jax.tree.map(
        lambda sa, sb, a, b: sa + sb + jnp.square(b - a) * left.examples * weight,
        left.scatter,
        right.scatter,
        left.mean,
        right.mean,
    )
    return Moments(count, mean, scatter)


def merge_over_axis(local: Moments, axis_name: AxisName | None) -> Moments:
    """Merge the moments of all devices along a mapped axis; without an axis, nothing happens.

    Three sums over the devices: of n, of n·mean, and of scatter + n·(mean − merged mean)².
    """
    if axis_name is None:
        return local
    examples = jax.lax.psum(local.examples, axis_name)
    weighted = jax.tree.map(lambda m: local.examples * m, local.mean)
    mean = jax.tree.map(lambda total: total / examples, jax.lax.psum(weighted, axis_name))
    scatter = jax.tree.map(
        lambda s, m, merged: jax.lax.psum(s + local.examples * jnp.square(m - merged), axis_name),
        local.scatter,
        local.mean,
        mean,
    )
    return Moments(examples, mean, scatter)


def variance_of_mean(moments: Moments) -> PyTree:
    """Variance of the mean, scatter / (n·(n − 1)); 0 for a single example.

    Example:
      >>> import jax.numpy as jnp
      >>> float(variance_of_mean(moments(jnp.array([1.0, 3.0]))))
      1.0
    """
    scale = 1.0 / (moments.examples * jnp.maximum(moments.examples - 1.0, 1.0))
    return jax.tree.map(lambda s: s * scale, moments.scatter)


def mean_and_variance(
    samples: jax.Array, axis_name: AxisName | None = None
) -> tuple[jax.Array, jax.Array]:
    """Batch mean of samples of shape (n, …) and the variance of that mean.

    Args:
      samples: one value per example of the (local) batch.
      axis_name: mapped axis over which the batch is split, or None.

    Returns:
      Mean and variance of the mean over all examples, of shape (…).

    Example:
      >>> import jax.numpy as jnp
      >>> mean, variance = mean_and_variance(jnp.array([1.0, 3.0]))
      >>> float(mean), float(variance)
      (2.0, 1.0)
    """
    summary = merge_over_axis(moments(samples), axis_name)
    return summary.mean, variance_of_mean(summary)
