"""What a step of training costs by Diffrax, and by a scan of fixed steps.

    python -m mekax.experiments.problems.diffrax_cost [PROBLEM...]

A step is the gradient of a minibatch of the problem's size, and `adameka`'s update from it. Both
ways take the same steps of the same method and come to the same losses. Seconds are those of the
processor, which other programs hardly change. Diffrax differentiates by `DirectAdjoint`, the only
one of its ways with the second derivatives that `adameka` needs.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

from ...optimizers import adameka
from ..data import batches
from ..problem import Problem, PyTree, Source
from ..solvers import Field
from ..solvers.runge_kutta import dtype_of
from . import continuous_flow, latent_ode, latent_sde, ode_classifier

_STEPS, _REPETITIONS = 10, 15


class RungeKutta4(diffrax.AbstractERK):
    """The method of `solvers.integrate`, which Diffrax lacks."""

    tableau = diffrax.ButcherTableau(
        a_lower=(np.array([0.5]), np.array([0, 0.5]), np.array([0, 0, 1.0])),
        b_sol=np.array([1, 2, 2, 1]) / 6,
        b_error=np.zeros(4),
        c=np.array([0.5, 0.5, 1.0]),
    )
    interpolation_cls = diffrax.ThirdOrderHermitePolynomialInterpolation.from_k

    def order(self, terms: Any) -> int:
        return 4


def integrate(field: Field, y0: PyTree, t0: float, t1: float, *, steps: int = 8) -> PyTree:
    """As `solvers.integrate`."""
    start, end = (jnp.asarray(t, dtype_of(y0)) for t in (t0, t1))
    term = diffrax.ODETerm(lambda t, y, args: field(jnp.asarray(t), y))
    solution = diffrax.diffeqsolve(
        term,
        RungeKutta4(),
        start,
        end,
        (end - start) / steps,
        y0,
        adjoint=diffrax.DirectAdjoint(),
        max_steps=steps,
        throw=False,
    )
    return jax.tree.map(lambda leaf: leaf[0], solution.ys)


def trajectory(field: Field, y0: PyTree, times: jax.Array) -> PyTree:
    """As `solvers.trajectory`, a solution from each time to the next.

    Diffrax's own `StepTo` refuses equal times, which pad short series.
    """

    def advance(y: PyTree, ends: tuple[Any, Any]) -> tuple[PyTree, PyTree]:
        y = integrate(field, y, *ends, steps=1)
        return y, y

    _, later = jax.lax.scan(advance, y0, (times[:-1], times[1:]))
    return jnp.concatenate([y0[None], later])


def scanned_path(
    drift: Any, diffusion: Any, y0: jax.Array, dt: float, noise: jax.Array, controls: Any = None
) -> jax.Array:
    """As `solvers.euler_maruyama`, which is Diffrax's, by a scan."""

    def advance(y: jax.Array, given: tuple[jax.Array, Any]) -> tuple[jax.Array, jax.Array]:
        epsilon, control = given
        y = y + drift(y, control) * dt + diffusion(y) * dt**0.5 * epsilon
        return y, y

    _, later = jax.lax.scan(advance, y0, (noise, controls))
    return jnp.concatenate([y0[None], later])


# A problem, and options for a scan and for Diffrax.
_WAYS: dict[str, tuple[Callable[..., Problem], dict[str, Any], dict[str, Any]]] = {
    "neural-ode": (ode_classifier.digits, {}, {"integrate": integrate}),
    "regularized-ode": (ode_classifier.regularized_digits, {}, {"integrate": integrate}),
    "cnf": (continuous_flow.eight_gaussians, {}, {"integrate": integrate}),
    "latent-ode": (latent_ode.quick, {}, {"trajectory": trajectory}),
    "latent-sde": (latent_sde.double_well, {"solve": scanned_path}, {}),
}


def program(problem: Problem) -> tuple[Callable[[], tuple[jax.Array, PyTree]], float]:
    """What some steps compute, and the seconds that compiling it took."""
    tx, params = adameka(), jax.jit(problem.init)(jax.random.key(0))
    rows = jnp.asarray(batches(0, 0, _STEPS, problem.examples, problem.batch_size))

    def step(state: PyTree, given: tuple[jax.Array, jax.Array]) -> tuple[PyTree, Any]:
        index, row = given
        batch = jax.tree.map(lambda leaf: leaf[row], problem.data)

        def value_fn(params: PyTree) -> jax.Array:
            return problem.losses(params, batch, jax.random.key(index))

        value, grad = jax.value_and_grad(lambda p: jnp.mean(value_fn(p)))(params)
        updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=value_fn)
        return state, (value, updates)

    clock = time.process_time()
    scan = jax.jit(lambda state: jax.lax.scan(step, state, (jnp.arange(_STEPS), rows)))
    compiled, state = scan.lower(tx.init(params)).compile(), tx.init(params)
    return partial(compiled, state), time.process_time() - clock


def main(names: list[str]) -> None:
    print("| problem | scan, ms a step | Diffrax, ratio | compiling, s | with Diffrax, s |")
    print("|---|---:|---:|---:|---:|")
    for name in names or _WAYS:
        make, *ways = _WAYS[name]
        programs = [program(make(name, Source(), **options)) for options in ways]
        seconds = np.empty((_REPETITIONS, 2))
        for repetition in range(_REPETITIONS):
            for way, (run, _) in enumerate(programs):  # in turn, so that both see the same machine
                clock = time.process_time()  # hardly changed by what else the machine does
                jax.block_until_ready(run())
                seconds[repetition, way] = time.process_time() - clock
        scan, other = seconds.min(axis=0)
        compiling = " | ".join(f"{seconds:.0f}" for _, seconds in programs)
        print(
            f"| {name} | {1e3 * scan / _STEPS:.1f} | {other / scan:.2f} | {compiling} |", flush=True
        )


if __name__ == "__main__":
    main(sys.argv[1:])
