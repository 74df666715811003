"""Derivatives in time of the solution of a differential equation, without solving it."""

import jax
import jax.numpy as jnp
from jax.experimental.jet import jet

from .runge_kutta import Field


def time_derivatives(field: Field, t: jax.Array, y: jax.Array, order: int) -> list[jax.Array]:
    """The first `order` total derivatives of the solution through y at t.

    From dy/dt = f(t, y) follow all further derivatives: given the first k, Taylor mode through f
    gives the first k of f along the solution, of which the last is derivative k + 1 of y.

    Args:
      field: `(t, y) -> dy/dt`, of operations that have a Taylor rule: tanh, exp, log, products
        and many others, but neither relu nor softplus.
      t: time, shape ().
      y: state, one floating array.
      order: how many derivatives, at least 1.

    Returns:
      dy/dt, d²y/dt², …, each like y.

    Raises:
      ValueError: if `order` is not positive.

    Example:
      >>> y = jnp.float32(2.0)
      >>> [float(d) for d in time_derivatives(lambda t, y: 3 * y, jnp.float32(0.0), y, 3)]
      [6.0, 18.0, 54.0]

    Source: J. Kelly, J. Bettencourt, M. J. Johnson and D. Duvenaud, *Learning Differential
    Equations that are Easy to Solve* (2020), arXiv:2007.04504, appendix A, algorithm 1.
    """
    if order < 1:
        raise ValueError(f"expected a derivative of order 1 at least, got order={order}")
    known = [field(t, y)]
    one, zero = jnp.ones_like(t), jnp.zeros_like(t)
    while len(known) < order:
        time = [one] + [zero] * (len(known) - 1)  # derivatives of t itself
        first, further = jet(field, (t, y), (time, known))
        known = [first, *further]
    return known
