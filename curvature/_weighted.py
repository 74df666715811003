import jax
import jax.numpy as jnp

from ._tree import widen


def weighted(losses: jax.Array, weights: jax.Array) -> jax.Array:
    """Losses whose plain mean is the weighted one, with its variance: for weights and padding.

        m = Σ w_i ℓ_i / Σ w_i,    ℓ'_i = m + c w_i (ℓ_i − m)
        c² = n (n − 1) / (Σ w_i)² · k/(k − 1)

    with k = (Σ w_i)² / Σ w_i², the number of examples that the weights are worth. The mean of ℓ'
    is m, and the variance of that mean, as every statistic here takes it, is that of the weighted
    mean, k/(k − 1) Σ w_i² (ℓ_i − m)² / (Σ w_i)². As ℓ' is linear in ℓ, slopes and curvatures have
    the right means and variances as well. Weights of 0 and 1 leave out examples, such as padding,
    exactly as if they were not there. Differentiated backward, what is left out must be finite.

    Args:
      losses: ℓ, one per example, shape (n,).
      weights: w, not negative, shape (n,); constants with respect to the parameters.

    Returns:
      ℓ', shape (n,), in float32 or wider; all 0 where every weight is 0.

    Raises:
      ValueError: if the shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from mekax.curvature import mean_and_variance
      >>> padded = weighted(jnp.array([1.0, 3.0, jnp.nan]), jnp.array([1.0, 1.0, 0.0]))
      >>> mean, variance = mean_and_variance(padded)
      >>> float(mean), round(float(variance), 3)  # as of [1, 3] alone
      (2.0, 1.0)
    """
    losses, weights = widen(losses), widen(weights)
    if losses.ndim != 1 or losses.shape != weights.shape:
        raise ValueError(
            f"mekax: expected losses and weights of one shape (n,), got {losses.shape} and "
            f"{weights.shape}. Pass one weight for each example."
        )
    n = losses.shape[0]
    losses = jnp.where(weights > 0, losses, 0)  # what is left out may be anything, NaN as well
    total = jnp.sum(weights)
    total = jnp.where(total > 0, total, 1)
    mean = jnp.sum(weights * losses) / total
    worth = jnp.square(total) / jnp.maximum(jnp.sum(jnp.square(weights)), jnp.finfo(total).tiny)
    correction = jnp.where(worth > 1, worth / jnp.maximum(worth - 1, 1e-6), 0)
    scale = jnp.sqrt(n * (n - 1) * correction) / total
    return mean + scale * weights * (losses - mean)
