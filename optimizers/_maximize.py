from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

_POINTS = 32
_DECADES = 4.0
_REFINEMENTS = 3
_LOGARITHMIC = np.logspace(-_DECADES, 0.0, _POINTS)
_LINEAR = np.linspace(1.0, 0.0, _POINTS)  # from the right, so that the end is met exactly


def maximize_on_interval(utility: Callable[[jax.Array], jax.Array], upper: jax.Array) -> jax.Array:
    """Maximize a vectorized function of one variable over (0, upper].

    A logarithmic grid over four decades finds the best basin, linear grids between its neighbors
    narrow it by a factor of 15 each; the relative error is below 10⁻³. Only `utility` is
    evaluated, on 32 points at a time, so a closed form costs microseconds. NaN counts as −∞; of
    points that are equally good the first is taken.

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
    dtype = jnp.result_type(upper, jnp.float32)
    linear = jnp.asarray(_LINEAR, dtype)

    def refine(_: int, found: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        points = found[0]
        values = utility(points)
        values = jnp.where(jnp.isnan(values), -jnp.inf, values)
        best = jnp.min(jnp.where(values == jnp.max(values), points, jnp.inf))
        left = jnp.max(jnp.where(points < best, points, points[0]))
        right = jnp.min(jnp.where(points > best, points, points[-1]))
        return right - (right - left) * linear, best

    # A loop, so that the utility is compiled only once.
    start = upper * jnp.asarray(_LOGARITHMIC, dtype)
    return jax.lax.fori_loop(0, 1 + _REFINEMENTS, refine, (start, start[0]))[1]
