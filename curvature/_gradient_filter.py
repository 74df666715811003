from typing import NamedTuple

import jax
import jax.numpy as jnp

from ._trees import PyTree, broadcast


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
