from collections.abc import Callable

import jax
import jax.numpy as jnp

_POINTS = 32
_DECADES = 4.0
_REFINEMENTS = 3


def maximize_on_interval(utility: Callable[[jax.Array], jax.Array], upper: jax.Array) -> jax.Array:
    """Maximize a vectorized function of one variable over (0, upper].

    A logarithmic grid over four decades finds the best basin, linear grids between its neighbors
    narrow it by a factor of 15 each; the relative error is below 10⁻³. Only `utility` is
    evaluated, on 32 points at a time, so a closed form costs microseconds. NaN counts as −∞.

    Args:
      utility: maps step sizes of shape (32,) to utilities of that shape.
      upper: scalar ≥ 0, the end of the interval.

    Returns:
      The maximizer, a scalar; `upper` if the utility increases throughout, 0 if `upper` is 0.

    Example:
      >>> import jax.numpy as jnp
      >>> x = maximize_on_interval(lambda x: x * (1 - x), jnp.array(10.0))
      >>> abs(float(x) - 0.5) < 1e-3
      True
    """
    fractions = jnp.logspace(-_DECADES, 0.0, _POINTS, dtype=jnp.result_type(upper, jnp.float32))
    points = upper * fractions.at[-1].set(1.0)

    def look(_: int, found: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        points = found[0]
        best = _best(utility, points)
        left = points[jnp.maximum(best - 1, 0)]
        right = points[jnp.minimum(best + 1, _POINTS - 1)]
        # Built from the right, so that the end of the interval is met exactly.
        finer = right - (right - left) * jnp.linspace(1.0, 0.0, _POINTS, dtype=points.dtype)
        return finer, points[best]

    # A loop, so that the utility is compiled only once.
    _, best = jax.lax.fori_loop(0, 1 + _REFINEMENTS, look, (points, points[0]))
    return best


def _best(utility: Callable[[jax.Array], jax.Array], points: jax.Array) -> jax.Array:
    values = utility(points)
    return jnp.argmax(jnp.where(jnp.isnan(values), -jnp.inf, values))
