from typing import NamedTuple

import jax
import jax.numpy as jnp


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
