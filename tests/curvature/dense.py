"""Dense-matrix reference of every quantity: slow, obvious, and the oracle of the tests.

Parameters are flattened to a vector of length D, covariances are D × D matrices, examples are
looped over, Hessians come from `jax.hessian`. Nothing in the library uses this file.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

PyTree = Any


class DenseStatistics(NamedTuple):
    """`BatchStatistics` with full D × D covariance matrices, and the mean Hessian."""

    value: jax.Array
    value_variance: jax.Array
    gradient: jax.Array
    gradient_variance: jax.Array
    product: jax.Array
    product_variance: jax.Array
    slope: jax.Array
    slope_variance: jax.Array
    hessian: jax.Array


def dense_statistics(
    loss_fn: Callable[[PyTree, PyTree], jax.Array],
    params: PyTree,
    batch: PyTree,
    displacement: PyTree,
) -> DenseStatistics:
    """Statistics of a batch from a loop over its examples and dense Hessians.

    Args:
      loss_fn: `(params, example) -> scalar`.
      params: θ, flattened to length D.
      batch: pytree of arrays, n examples along the leading axis.
      displacement: δ, a pytree like `params`.

    Returns:
      `DenseStatistics`; all variances are those of the mean over the n examples.

    Example:
      >>> import jax.numpy as jnp
      >>> stats = dense_statistics(lambda w, x: ((w - x) ** 2).sum() / 2, jnp.array([3.0]),
      ...                          jnp.array([0.0, 2.0]), jnp.array([1.0]))
      >>> stats.gradient_variance.tolist(), stats.hessian.tolist()
      ([[1.0]], [[1.0]])
    """
    theta, unravel = ravel_pytree(params)
    delta, _ = ravel_pytree(displacement)
    count = jax.tree.leaves(batch)[0].shape[0]
    values, gradients, hessians = [], [], []
    for i in range(count):
        example = jax.tree.map(lambda x, i=i: x[i], batch)

        def loss(vector, example=example):
            return loss_fn(unravel(vector), example)

        values.append(loss(theta))
        gradients.append(jax.grad(loss)(theta))
        hessians.append(jax.hessian(loss)(theta))
    values, gradients, hessians = map(jnp.stack, (values, gradients, hessians))
    products = hessians @ delta

    def variance(samples):
        if count == 1:
            return jnp.zeros(samples.shape[1:] * 2)
        return jnp.cov(samples, rowvar=False, ddof=1) / count

    gradient_variance = jnp.atleast_2d(variance(gradients))
    return DenseStatistics(
        value=values.mean(),
        value_variance=variance(values),
        gradient=gradients.mean(0),
        gradient_variance=gradient_variance,
        product=products.mean(0),
        product_variance=jnp.atleast_2d(variance(products)),
        slope=gradients.mean(0) @ delta,
        slope_variance=delta @ gradient_variance @ delta,
        hessian=hessians.mean(0),
    )


def dense_gradient_filter(
    mean: jax.Array,
    variance: jax.Array,
    product: jax.Array,
    product_variance: jax.Array,
    gradient: jax.Array,
    gradient_variance: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """One textbook Kalman step on vectors and D × D matrices, in the Joseph form.

        m⁻ = m + Bδ,  P⁻ = P + Q,  K = P⁻ (P⁻ + Σ)⁻¹,
        m = m⁻ + K (g − m⁻),  P = (I − K) P⁻ (I − K)ᵀ + K Σ Kᵀ

    Args:
      mean: m, shape (D,).
      variance: P, shape (D, D).
      product: Bδ, shape (D,).
      product_variance: Q, shape (D, D).
      gradient: g, shape (D,).
      gradient_variance: Σ, shape (D, D).

    Returns:
      The corrected mean, shape (D,), and variance, shape (D, D).

    Example:
      >>> import jax.numpy as jnp
      >>> zero, one = jnp.zeros(1), jnp.eye(1)
      >>> m, P = dense_gradient_filter(zero, one, zero, 0 * one, jnp.array([2.0]), one)
      >>> m.tolist(), P.tolist()
      ([1.0], [[0.5]])

    Source: Kalman (1960); Bucy & Joseph (1968) for the form of the covariance update.
    """
    predicted, prior = mean + product, variance + product_variance
    K = jnp.linalg.solve((prior + gradient_variance).T, prior.T).T
    rest = jnp.eye(mean.shape[0], dtype=mean.dtype) - K
    return (
        predicted + K @ (gradient - predicted),
        rest @ prior @ rest.T + K @ gradient_variance @ K.T,
    )


def dense_value_filter(
    mean: jax.Array,
    variance: jax.Array,
    gradient_mean: jax.Array,
    gradient_variance: jax.Array,
    displacement: jax.Array,
    product: jax.Array,
    product_variance: jax.Array,
    value: jax.Array,
    value_variance: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """One step of the value filter by conditioning the joint Gaussian of (f, y).

    The prior of f is N(u⁻, s⁻) with s⁻ = max((y − u⁻)² − r, c), which is c plus the adaptive
    process noise; y = f + noise of variance r.

    Args:
      mean: u, scalar.
      variance: s, scalar.
      gradient_mean: m, shape (D,).
      gradient_variance: P, shape (D, D).
      displacement: δ, shape (D,).
      product: Bδ, shape (D,).
      product_variance: Q, shape (D, D).
      value: y, scalar.
      value_variance: r, scalar.

    Returns:
      The corrected mean and variance, scalars.

    Example:
      >>> import jax.numpy as jnp
      >>> zero, one = jnp.zeros(1), jnp.eye(1)
      >>> u, s = dense_value_filter(0.0, 1.0, zero, one, zero, zero, one, jnp.array(1.0), 1.0)
      >>> float(u), float(s)
      (0.5, 0.5)

    Source: Chen et al. (2020), arXiv 2011.04803, section 3.
    """
    predicted = mean + gradient_mean @ displacement + displacement @ product / 2
    spread = displacement @ (gradient_variance + product_variance / 4) @ displacement
    prior = jnp.maximum((value - predicted) ** 2 - value_variance, variance + spread)
    joint = jnp.array([[prior, prior], [prior, prior + value_variance]])
    slope = joint[0, 1] / joint[1, 1]
    return predicted + slope * (value - predicted), joint[0, 0] - slope * joint[1, 0]
