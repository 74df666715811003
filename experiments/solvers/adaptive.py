"""Solving to a tolerance with Diffrax, and what it costs.

Diffrax is by P. Kidger, *On Neural Differential Equations*, PhD thesis, Oxford (2021).
"""

from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp

from .runge_kutta import Field, PyTree, dtype_of

_STAGES = 6  # new evaluations in a step of Tsit5 and Dopri5: the last serves the next step again
_FIRST_STEP = 0.01


class Solution(NamedTuple):
    """The result of an adaptive solver.

    Attributes:
      y: state at the end, like y0; not a number where the solver did not get there.
      evaluations: of the field, as many as the method needs: one, and six for each step, accepted
        or rejected; int32, shape (); counted to where the solver gave up, if it did.
      succeeded: whether the solver got to the end within its steps, bool, shape ().
    """

    y: PyTree
    evaluations: jax.Array
    succeeded: jax.Array


def solve(
    field: Field,
    y0: PyTree,
    t0: float,
    t1: float,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 4096,
    solver: Any = None,
    differentiable: bool = False,
) -> Solution:
    """Solve dy/dt = field(t, y) from t0 to t1, choosing steps whose estimated error is tolerable.

    A step is tolerable if ‖error / (atol + rtol |y|)‖ ≤ 1 in the root mean square. A solver that
    runs out of steps, or whose field is not finite, does not stop the program, because other
    examples of a batch may be well: it returns NaN and `succeeded=False`. The first step tried
    is 0.01 long.

    Args:
      field: `(t, y) -> dy/dt`, t of shape ().
      y0: state at t0, a pytree of floating arrays of one type.
      t0: where to start.
      t1: where to end; smaller than t0 to go backward.
      rtol: relative tolerance.
      atol: absolute tolerance.
      max_steps: accepted and rejected ones together, at most.
      solver: `diffrax.Tsit5()`, which is the default, or `diffrax.Dopri5()`.
      differentiable: whether to be differentiable in any order and mode, at a price: the solver
        then differentiates its own loop. Otherwise reverse mode works once, and forward mode
        raises an error of jax's.

    Returns:
      The state at t1, the number of evaluations of the field, and whether all went well.

    Raises:
      ValueError: for a solver whose evaluations are not counted here.

    Example:
      >>> y, evaluations, succeeded = solve(lambda t, y: -y, jnp.ones(()), 0.0, 1.0)
      >>> print(f"{y:.4f}, well: {succeeded}, in few evaluations: {evaluations < 50}")
      0.3679, well: True, in few evaluations: True

    Source: C. Tsitouras, *Runge–Kutta pairs of order 5(4) satisfying only the first column
    simplifying assumption* (2011), table 1; J. R. Dormand and P. J. Prince (1980), table 2.
    """
    solver = diffrax.Tsit5() if solver is None else solver
    if type(solver) not in (diffrax.Tsit5, diffrax.Dopri5):
        raise ValueError(
            f"expected diffrax.Tsit5() or diffrax.Dopri5(), whose evaluations of the field are "
            f"known to be {_STAGES} a step, got {solver}"
        )
    adjoint = diffrax.DirectAdjoint() if differentiable else diffrax.RecursiveCheckpointAdjoint()
    dtype = dtype_of(y0)
    found = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: field(jnp.asarray(t), y)),
        solver,
        jnp.asarray(t0, dtype),
        jnp.asarray(t1, dtype),
        dt0=jnp.asarray(jnp.sign(t1 - t0) * _FIRST_STEP, dtype),
        y0=y0,
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
        adjoint=adjoint,
        max_steps=max_steps,
        throw=False,
    )
    y = jax.tree.map(lambda leaf: leaf[0], found.ys)
    finite = jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(y)]).all()
    succeeded = (found.result == diffrax.RESULTS.successful) & finite
    return Solution(
        y=jax.tree.map(lambda leaf: jnp.where(succeeded, leaf, jnp.nan), y),
        evaluations=1 + _STAGES * found.stats["num_steps"],
        succeeded=succeeded,
    )


def integrate_adaptively(field: Field, y0: PyTree, t0: float, t1: float) -> PyTree:
    """The state at t1 to a tolerance of 1e-6, differentiable in any order and mode.

    In place of the fixed steps of `integrate`, wherever a problem takes an `integrate` argument.

    Args:
      field: `(t, y) -> dy/dt`, t of shape ().
      y0: state at t0, a pytree of floating arrays of one type.
      t0: where to start.
      t1: where to end; smaller than t0 to go backward.

    Returns:
      The state at t1, like y0; not a number if that takes more than 256 steps.

    Example:
      >>> final = lambda a: integrate_adaptively(lambda t, y: a * y, jnp.ones(()), 0.0, 1.0)
      >>> print(f"{jax.grad(final)(1.0):.4f}")
      2.7183

    Source: as `solve`.
    """
    return solve(field, y0, t0, t1, rtol=1e-6, atol=1e-6, max_steps=256, differentiable=True).y
