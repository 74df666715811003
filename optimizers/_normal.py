"""Functions of the standard normal distribution that are safe in both tails."""

import jax
import jax.numpy as jnp

_LOG_SQRT_2PI = 0.9189385332046727
_SWITCH = 2.0  # below −2 the continued fraction converges fast and the direct sum cancels
_TERMS = {True: 48, False: 16}  # to rounding at −2 in float64, or in float32 and below


def log_improvement(z: jax.Array) -> jax.Array:
    """Logarithm of the expected positive part of a unit normal, log(φ(z) + z Φ(z)).

    The expected improvement of N(−z, 1) is φ(z) + zΦ(z). For z < −2 the two terms cancel; with
    x = −z the ratio to φ is 1 − x R(x), where Mills' ratio has Laplace's continued fraction
    R(x) = 1/(x + T), T = 1/(x + 2/(x + 3/(x + …))). Hence

        φ(z) + zΦ(z) = φ(z) · T / (x + T),

    without cancellation, finite for every finite z whose square is.

    Args:
      z: any shape, float.

    Returns:
      The logarithm, of the same shape and dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> float(jnp.exp(log_improvement(jnp.array(0.0))))  # φ(0)
      0.398942...
      >>> float(log_improvement(jnp.array(-30.0)))  # direct evaluation gives log 0
      -457.724...

    Source: Ament et al. (2023), arXiv 2310.20708, for the use; Laplace's continued fraction.
    """
    z = jnp.asarray(z)
    middle = jnp.maximum(z, -_SWITCH)
    direct = jnp.log(jnp.exp(_log_density(middle)) + middle * jax.scipy.stats.norm.cdf(middle))
    x = jnp.maximum(-z, _SWITCH)
    terms = _TERMS[z.dtype == jnp.float64]
    # The rest of the fraction is nearly periodic: t = (N + 1)/(x + t).
    fraction = 0.5 * (jnp.sqrt(jnp.square(x) + 4.0 * (terms + 1)) - x)
    for k in range(terms, 0, -1):
        fraction = k / (x + fraction)
    tail = _log_density(x) + jnp.log(fraction) - jnp.log(x + fraction)
    return jnp.where(z < -_SWITCH, tail, direct)


def _log_density(z: jax.Array) -> jax.Array:
    return -0.5 * jnp.square(z) - _LOG_SQRT_2PI
