"""Kalman filters of the gradient and of the value: predict along a step, correct by a batch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ._tree import PyTree, broadcast


class GradientBelief(NamedTuple):
    """Gaussian belief N(m, P) about the true gradient at the current parameters.

    Attributes:
      mean: m, a tree like the parameters.
      variance: P, a prefix of the parameters: one scalar, a scalar per leaf, or a full tree.
    """

    mean: PyTree
    variance: PyTree


def predict_gradient(
    belief: GradientBelief, product: PyTree, product_variance: PyTree
) -> GradientBelief:
    """Transport the belief along the displacement δ by the curvature seen there.

        m⁻ = m + Bδ,    P⁻ = P + Q

    Exact if the loss is quadratic between the two points.

    Args:
      belief: N(m, P) at the previous parameters.
      product: Bδ, a tree like the parameters.
      product_variance: Q, in the structure of P.

    Returns:
      The predicted belief N(m⁻, P⁻).

    Example:
      >>> import jax.numpy as jnp
      >>> belief = GradientBelief(jnp.array([1.0]), jnp.array(0.5))
      >>> predicted = predict_gradient(belief, jnp.array([-1.0]), jnp.array(0.25))
      >>> predicted.mean.tolist(), float(predicted.variance)
      ([0.0], 0.75)

    Source: Chen et al. (2020), arXiv 2011.04803, section 3.
    """
    return GradientBelief(
        mean=jax.tree.map(jnp.add, belief.mean, product),
        variance=jax.tree.map(jnp.add, belief.variance, product_variance),
    )


def gain(variance: PyTree, observation_variance: PyTree) -> PyTree:
    """Kalman gain K = P⁻ / (P⁻ + Σ), elementwise; 1 where both are 0 (trust the exact gradient)."""

    def ratio(p: jax.Array, noise: jax.Array) -> jax.Array:
        total = p + noise
        return jnp.where(total > 0, p / jnp.where(total > 0, total, 1), 1)

    return jax.tree.map(ratio, variance, observation_variance)


def correct_gradient(
    belief: GradientBelief, gradient: PyTree, gradient_variance: PyTree
) -> tuple[GradientBelief, PyTree]:
    """Condition the predicted belief on the gradient of a fresh minibatch.

        K = P⁻ / (P⁻ + Σ),    m = (1 − K) m⁻ + K g,    P = (1 − K)² P⁻ + K² Σ

    With K = 1 the mean is the plain stochastic gradient; with Σ = 0 it always is.

    Args:
      belief: the predicted N(m⁻, P⁻).
      gradient: g, a tree like the parameters.
      gradient_variance: Σ, in the structure of P.

    Returns:
      The corrected belief N(m, P), and the gain K in the structure of P.

    Example:
      >>> import jax.numpy as jnp
      >>> predicted = GradientBelief(jnp.array([0.0]), jnp.array(1.0))
      >>> belief, K = correct_gradient(predicted, jnp.array([2.0]), jnp.array(1.0))
      >>> belief.mean.tolist(), float(belief.variance), float(K)
      ([1.0], 0.5, 0.5)

    Source: Chen et al. (2020), arXiv 2011.04803, section 3.
    """
    K = gain(belief.variance, gradient_variance)
    mean = jax.tree.map(
        lambda k, m, g: (1 - k) * m + k * g, broadcast(K, gradient), belief.mean, gradient
    )
    variance = jax.tree.map(
        lambda k, p, noise: jnp.square(1 - k) * p + jnp.square(k) * noise,
        K,
        belief.variance,
        gradient_variance,
    )
    return GradientBelief(mean, variance), K


class ValueBelief(NamedTuple):
    """Gaussian belief N(u, s) about the true loss at the current parameters; scalars."""

    mean: jax.Array
    variance: jax.Array


def predict_value(
    belief: ValueBelief, change: jax.typing.ArrayLike, change_variance: jax.typing.ArrayLike
) -> ValueBelief:
    """Shift the belief by the change that the gradient filter expects from the displacement δ.

        u⁻ = u + m·δ + ½ δ·Bδ,    c = s + δ·Pδ + ¼ δ·Qδ

    Args:
      belief: N(u, s) at the previous parameters.
      change: m·δ + ½ δ·Bδ, a scalar.
      change_variance: δ·Pδ + ¼ δ·Qδ, a scalar.

    Returns:
      The predicted belief N(u⁻, c).

    Example:
      >>> import jax.numpy as jnp
      >>> belief = predict_value(ValueBelief(jnp.array(2.0), jnp.array(1.0)), -0.5, 0.25)
      >>> float(belief.mean), float(belief.variance)
      (1.5, 1.25)

    Source: Chen et al. (2020), arXiv 2011.04803, section 3.
    """
    return ValueBelief(belief.mean + change, belief.variance + change_variance)


def correct_value(
    belief: ValueBelief, value: jax.Array, value_variance: jax.Array
) -> tuple[ValueBelief, jax.Array]:
    """Condition the predicted belief on the loss of a fresh minibatch.

        λ = max((y − u⁻)² − (c + r), 0),    s⁻ = c + λ
        γ = s⁻/(s⁻ + r),    u = (1 − γ) u⁻ + γ y,    s = (1 − γ)² s⁻ + γ² r

    The process noise λ is the model error seen this step: whatever the surprise exceeds its
    expected size by is put down to the prediction, not to the observation.

    Args:
      belief: the predicted N(u⁻, c).
      value: y, the mean loss of the batch.
      value_variance: r, the variance of that mean.

    Returns:
      The corrected belief N(u, s), and the gain γ (1 if both variances are 0).

    Example:
      >>> import jax.numpy as jnp
      >>> belief, g = correct_value(ValueBelief(jnp.array(0.0), jnp.array(1.0)), jnp.array(1.0),
      ...                           jnp.array(1.0))
      >>> float(belief.mean), float(belief.variance), float(g)
      (0.5, 0.5, 0.5)

    Source: Chen et al. (2020), arXiv 2011.04803, section 3.
    """
    surprise = jnp.square(value - belief.mean)
    process_noise = jnp.maximum(surprise - (belief.variance + value_variance), 0)
    prior = belief.variance + process_noise
    total = prior + value_variance
    g = jnp.where(total > 0, prior / jnp.where(total > 0, total, 1), 1)
    mean = (1 - g) * belief.mean + g * value
    variance = jnp.square(1 - g) * prior + jnp.square(g) * value_variance
    return ValueBelief(mean, variance), g
