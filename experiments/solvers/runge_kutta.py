"""The classical Runge–Kutta method with steps of fixed length.

    y ← y + dt (k₁ + 2 k₂ + 2 k₃ + k₄) / 6

A solver of our own, because training differentiates twice: a scan of a known number of steps has
nothing special to differentiate, in any order and mode, and `vmap` over examples costs nothing
extra. The same steps by Diffrax make a step of training cost 1.65 times as much on `neural-ode`,
1.61 on `cnf`, 1.52 on `latent-ode` (whose series repeat their last time, which Diffrax's `StepTo`
refuses) and 1.24 on `regularized-ode`: measured by
`python -m mekax.experiments.problems.diffrax_cost`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any
Field = Callable[[jax.Array, PyTree], PyTree]  # (t, y) -> dy/dt, y and dy/dt alike
Integrate = Callable[[Field, PyTree, float, float], PyTree]  # (field, y0, t0, t1) -> y(t1)


def integrate(field: Field, y0: PyTree, t0: float, t1: float, *, steps: int) -> PyTree:
    """Solve dy/dt = field(t, y) from t0 to t1 by `steps` steps of equal length.

    The global error is O(((t1 − t0) / steps)⁴).

    Args:
      field: `(t, y) -> dy/dt`, t of shape ().
      y0: state at t0, a pytree of floating arrays of one type.
      t0: where to start; scalars, which may be traced.
      t1: where to end; smaller than t0 to go backward.
      steps: how many, at least 1.

    Returns:
      The state at t1, like y0.

    Raises:
      ValueError: if `steps` is not positive.

    Example:
      >>> y = integrate(lambda t, y: -y, jnp.ones(()), 0.0, 1.0, steps=10)
      >>> print(f"{y:.5f}, exact {jnp.exp(-1):.5f}")
      0.36788, exact 0.36788

    Source: M. W. Kutta (1901); E. Hairer, S. P. Nørsett and G. Wanner, *Solving Ordinary
    Differential Equations I* (1993), section II.1, table 1.2, "the" Runge–Kutta method.
    """
    if steps < 1:
        raise ValueError(f"expected at least 1 step, got steps={steps}")
    dt = jnp.asarray((t1 - t0) / steps, dtype_of(y0))

    def advance(y: PyTree, index: jax.Array) -> tuple[PyTree, None]:
        return _step(field, t0 + dt * index.astype(dt.dtype), y, dt), None

    return jax.lax.scan(advance, y0, jnp.arange(steps))[0]


def trajectory(field: Field, y0: PyTree, times: jax.Array, *, substeps: int = 1) -> PyTree:
    """Solve dy/dt = field(t, y) at given times, which need not be equally far apart.

    Between two times there are `substeps` steps of equal length; equal times leave the state as it
    is, so that the last time, repeated, pads a short series.

    Args:
      field: `(t, y) -> dy/dt`, t of shape ().
      y0: state at times[0], a pytree of floating arrays of one type.
      times: shape (n,), monotone.
      substeps: steps from one time to the next, at least 1.

    Returns:
      The states, like y0 with a leading axis of length n; the first is y0.

    Raises:
      ValueError: if `substeps` is not positive.

    Example:
      >>> times = jnp.array([0.0, 0.1, 0.5, 0.5])
      >>> print(trajectory(lambda t, y: 2 * t, jnp.zeros(()), times))
      [0.   0.01 0.25 0.25]

    Source: as `integrate`.
    """

    def advance(y: PyTree, ends: tuple[jax.Array, jax.Array]) -> tuple[PyTree, PyTree]:
        y = integrate(field, y, *ends, steps=substeps)  # pyright: ignore[reportArgumentType]
        return y, y

    _, later = jax.lax.scan(advance, y0, (times[:-1], times[1:]))
    return jax.tree.map(lambda y, rest: jnp.concatenate([y[None], rest]), y0, later)


def dtype_of(y: PyTree) -> jnp.dtype:
    """The type in which a state is computed, which is that of the time as well."""
    return jnp.result_type(*jax.tree.leaves(y))


def _step(field: Field, t: jax.Array, y: PyTree, dt: jax.Array) -> PyTree:
    k1 = field(t, y)
    k2 = field(t + dt / 2, _moved(y, dt / 2, k1))
    k3 = field(t + dt / 2, _moved(y, dt / 2, k2))
    k4 = field(t + dt, _moved(y, dt, k3))
    slope = jax.tree.map(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, k1, k2, k3, k4)
    return _moved(y, dt, slope)


def _moved(y: PyTree, dt: jax.Array, slope: PyTree) -> Any:
    return jax.tree.map(lambda a, b: a + dt * b, y, slope)
