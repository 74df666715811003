"""Functions of the standard normal distribution that are safe in both tails."""

import jax
import jax.numpy as jnp

_LOG_SQRT_2PI = 0.9189385332046727
_SQRT_HALF = 0.7071067811865476
_SWITCH = (
    4.0  # below −4 the continued fraction converges fast; above, the direct sum cancels little
)
_TERMS = {True: 20, False: 5}  # to what the direct sum rounds at −4, in float64 and in float32


def log_improvement(z: jax.Array) -> jax.Array:
    """Logarithm of the expected positive part of a unit normal, log(φ(z) + z Φ(z)).

    The expected improvement of N(−z, 1) is φ(z) + zΦ(z). For z < −4 the two terms cancel; with
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
    density = jnp.exp(-0.5 * jnp.square(middle) - _LOG_SQRT_2PI)
    direct = jnp.log(density + 0.5 * middle * jax.lax.erfc(-_SQRT_HALF * middle))
    x = jnp.maximum(-z, _SWITCH)
    terms = _TERMS[z.dtype == jnp.float64]
    # The rest of the fraction is nearly periodic: t = (N + 1)/(x + t).
    fraction = 0.5 * (jnp.sqrt(jnp.square(x) + 4.0 * (terms + 1)) - x)
    for k in range(terms, 0, -1):
        fraction = k / (x + fraction)
    tail = jnp.log(fraction / (x + fraction)) - 0.5 * jnp.square(x) - _LOG_SQRT_2PI
    return jnp.where(z < -_SWITCH, tail, direct)
