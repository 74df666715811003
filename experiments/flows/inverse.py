"""Back from x + g(x) to x."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

_PRECISION = 8  # units of rounding of the largest entry

_State = tuple[jax.Array, jax.Array, jax.Array]  # x, how far it moved, steps made


def invert(
    function: Callable[[jax.Array], jax.Array], y: jax.Array, max_steps: int = 500
) -> jax.Array:
    """Find x with x + g(x) = y by x ← y − g(x), until it moves no more than rounding does.

    The error falls by the Lipschitz constant c of g with every step, so x is as exact as
    rounding / (1 − c) allows. Not meant to be differentiated.

    Args:
      function: g, of Lipschitz constant below 1.
      y: shape (d,).
      max_steps: after which x is returned as it is.

    Returns:
      x, shape (d,).

    Example:
      >>> y = jnp.array([1.0, -2.0])
      >>> x = invert(lambda x: 0.5 * jnp.sin(x), y)
      >>> print(jnp.abs(x + 0.5 * jnp.sin(x) - y).max() < 1e-6)
      True

    Source: J. Behrmann, W. Grathwohl, R. T. Q. Chen, D. Duvenaud and J.-H. Jacobsen, *Invertible
    Residual Networks* (2019), arXiv:1811.00995, algorithm 1.
    """
    tolerance = _PRECISION * jnp.finfo(y.dtype).eps * jnp.maximum(jnp.abs(y).max(), 1)

    def goes_on(state: _State) -> jax.Array:
        _, moved, steps = state
        return (moved > tolerance) & (steps < max_steps)

    def advance(state: _State) -> _State:
        x, _, steps = state
        closer = y - function(x)
        return closer, jnp.abs(closer - x).max(), steps + 1

    infinity = jnp.full((), jnp.inf, y.dtype)
    return jax.lax.while_loop(goes_on, advance, (y, infinity, jnp.zeros((), jnp.int32)))[0]
