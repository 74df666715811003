"""Continuous normalizing flows: a density carried along by a differential equation.

    dy/dt = f(t, y),    y(1) = x,    log p(x) = log N(y(0); 0, I) − ∫₀¹ tr ∂f/∂y dt

While training, the trace is exact or estimated from one random direction of each example, and
steps are fixed. What is measured is exact, solved to a tolerance.

W. Grathwohl, R. T. Q. Chen, J. Bettencourt, I. Sutskever and D. Duvenaud, *FFJORD* (2019),
arXiv:1810.01367; R. T. Q. Chen and D. Duvenaud, *Neural Networks with Cheap Differential
Operators* (2019), arXiv:1912.03579, section 4.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import data, solvers
from ..models import HollowField, VectorField
from ..problem import Problem, PyTree, Source
from . import densities
from .common import STEPS, fixed_steps, in_precision_of, to_tolerance
from .flow import Flow, Mapped, density, minus_log_p

_EVALUATIONS = 5  # of a run: measuring takes as long as many steps


def in_the_plane(
    name: str,
    source: Source,
    sample: densities.Sampler,
    field: VectorField | HollowField = VectorField((64, 64)),  # noqa: B008
    **options: Any,
) -> Problem:
    """A density in the plane; options are those of `continuous_flow`."""
    del source  # the data are drawn
    return continuous_flow(name, densities.examples(sample), field, **options)


eight_gaussians = partial(in_the_plane, sample=densities.eight_gaussians)
pinwheel = partial(in_the_plane, sample=densities.pinwheel)
two_spirals = partial(in_the_plane, sample=densities.two_spirals)
checkerboard = partial(in_the_plane, sample=densities.checkerboard)
hollow = partial(eight_gaussians, field=HollowField(features=32, conditions=32, width=64))
large = partial(
    checkerboard,
    field=VectorField((256, 256, 256)),
    integrate=partial(solvers.integrate, steps=4 * STEPS),
    batch_size=512,
    epochs=500,
)


def table(name: str, source: Source) -> Problem:
    """The density of measurements of cells."""
    del source  # the data are built in
    return continuous_flow(name, data.cells(), VectorField((64,)), epochs=60)


def continuous_flow(
    name: str,
    examples: tuple[np.ndarray, np.ndarray],
    field: VectorField | HollowField,
    *,
    estimated: bool = True,
    integrate: solvers.Integrate = fixed_steps,
    batch_size: int = 64,
    epochs: int = 4,
) -> Problem:
    """Make the problem of learning a density by the map x = y(1) ↦ y(0).

    Measured are −log p, in nats, and how often an adaptive solver evaluates f and its trace to
    solve the equation to a tolerance of 1e-5. Both are infinite where 500 steps do not suffice.

    Args:
      name: of the problem.
      examples: points to learn from and to judge by.
      field: f.
      estimated: whether the trace is estimated while training; a `HollowField`'s never is.
      integrate: solver to train with.
      batch_size: default batch size.
      epochs: default number of epochs.

    Raises:
      ValueError: for a solver that cannot be differentiated twice.
    """
    solvers.require_second_order(integrate)

    def init(key: jax.Array) -> PyTree:
        return field.init(key, jnp.zeros(()), jnp.zeros(examples[0].shape[1]))

    def estimate(params: PyTree, x: jax.Array, key: jax.Array) -> Mapped:
        probe = jax.random.rademacher(key, x.shape, x.dtype) if estimated else None
        return integrate(_carried(field, params, probe), _start(x), 1.0, 0.0)

    def inverse(params: PyTree, z: jax.Array) -> jax.Array:
        return to_tolerance(partial(field.apply, params), in_precision_of(params, z), 0.0, 1.0).y

    def solve(params: PyTree, x: jax.Array) -> solvers.Solution:
        return to_tolerance(_carried(field, params), _start(in_precision_of(params, x)), 1.0, 0.0)

    def measure(params: PyTree, x: jax.Array) -> dict[str, jax.Array]:
        mapped, evaluations, succeeded = solve(params, x)
        values = {"loss": minus_log_p(mapped), "function_evaluations": evaluations}
        return {name: jnp.where(succeeded, value, jnp.inf) for name, value in values.items()}

    return density(
        name,
        examples,
        Flow(init, lambda params, x: solve(params, x).y, inverse, estimate),
        batch_size=batch_size,
        epochs=epochs,
        evaluations=_EVALUATIONS,
        measure=measure,
    )


def _start(x: jax.Array) -> Mapped:
    return x, jnp.zeros((), x.dtype)


def _carried(
    field: VectorField | HollowField, params: PyTree, probe: jax.Array | None = None
) -> solvers.Field:
    """The field of the state and of the logarithm of how much it spreads."""

    def both(t: jax.Array, state: Mapped) -> Mapped:
        y = state[0]
        apply: Any = partial(field.apply, params, t)
        if isinstance(field, HollowField):
            condition = partial(apply, method="condition")
            transform = partial(apply, method="transform")
            return solvers.hollow_divergence(condition, transform, y)
        if probe is None:
            return solvers.divergence(apply, y)
        return solvers.hutchinson_divergence(apply, y, probe)

    return both
