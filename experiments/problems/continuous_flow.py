"""Continuous normalizing flows: a density carried along by a differential equation.

    dy/dt = f(t, y),    y(1) = x,    log p(x) = log N(y(0); 0, I) − ∫₀¹ tr ∂f/∂y dt

While training, the trace is exact or estimated from one random direction of each example, and
steps are fixed. What is measured is exact, solved to a tolerance.

W. Grathwohl, R. T. Q. Chen, J. Bettencourt, I. Sutskever and D. Duvenaud, *FFJORD* (2019),
arXiv:1810.01367; R. T. Q. Chen and D. Duvenaud, *Neural Networks with Cheap Differential
Operators* (2019), arXiv:1912.03579, section 4.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import densities, measurements, ode
from ..models import HollowField, VectorField
from .batched import batched
from .flow import Flow, Mapped, density
from .problem import Problem, PyTree, Source
from .solving import STEPS, fixed_steps, to_tolerance

EVALUATIONS = 5  # of a run: measuring takes as long as many steps


def eight_gaussians(name: str, source: Source) -> Problem:
    del source  # the data are drawn
    return in_the_plane(name, densities.eight_gaussians)


def pinwheel(name: str, source: Source) -> Problem:
    del source
    return in_the_plane(name, densities.pinwheel)


def two_spirals(name: str, source: Source) -> Problem:
    del source
    return in_the_plane(name, densities.two_spirals)


def checkerboard(name: str, source: Source) -> Problem:
    del source
    return in_the_plane(name, densities.checkerboard)


def hollow(name: str, source: Source) -> Problem:
    del source
    field = HollowField(features=32, conditions=32, width=64)
    return in_the_plane(name, densities.eight_gaussians, field)


def large(name: str, source: Source) -> Problem:
    del source
    return in_the_plane(
        name,
        densities.checkerboard,
        VectorField((256, 256, 256)),
        integrate=partial(ode.integrate, steps=4 * STEPS),
        batch_size=512,
        epochs=500,
    )


def table(name: str, source: Source) -> Problem:
    """The density of measurements of cells."""
    del source  # the data are built in
    train, test = measurements.cells()
    field = VectorField((64,))
    flow = continuous_flow(field, train.shape[1])

    def loss(params: PyTree, example: PyTree, key: jax.Array) -> jax.Array:
        return _surprise(flow.estimate(params, example["x"], key))

    return Problem(
        name=name,
        init=flow.init,
        loss=loss,
        losses=batched(loss),
        measure=partial(_measure, field),
        data={"x": jnp.asarray(train)},
        test={"x": jnp.asarray(test)},
        batch_size=64,
        epochs=60,
        evaluations=EVALUATIONS,
        plot=lambda params, path: _plot_table(name, partial(flow.inverse, params), train, path),
    )


def in_the_plane(
    name: str,
    sample: densities.Sampler,
    field: VectorField | HollowField = VectorField((64, 64)),  # noqa: B008
    *,
    estimated: bool = True,
    integrate: ode.Integrate = fixed_steps,
    batch_size: int = 64,
    epochs: int = 4,
) -> Problem:
    """Make the problem of learning a density in the plane.

    Measured are −log p, in nats, and how often an adaptive solver evaluates f and its trace to
    solve the equation to a tolerance of 1e-5. Both are infinite where 500 steps do not suffice.

    Args:
      name: of the problem.
      sample: draws the data.
      field: f.
      estimated: whether the trace is estimated while training; one that is cheap never is.
      integrate: solver to train with.
      batch_size: default batch size.
      epochs: default number of epochs.
    """
    flow = continuous_flow(field, 2, estimated=estimated, integrate=integrate)
    problem = density(name, sample, flow, batch_size=batch_size, epochs=epochs)
    return replace(problem, measure=partial(_measure, field), evaluations=EVALUATIONS)


def continuous_flow(
    field: VectorField | HollowField,
    size: int,
    *,
    estimated: bool = True,
    integrate: ode.Integrate = fixed_steps,
) -> Flow:
    """The map x = y(1) ↦ y(0).

    Args:
      field: f.
      size: of x.
      estimated: whether the trace is estimated while training; one that is cheap never is.
      integrate: solver to train with.

    Raises:
      ValueError: for a solver that cannot be differentiated twice.
    """
    ode.require_second_order(integrate)

    def estimate(params: PyTree, x: jax.Array, key: jax.Array) -> Mapped:
        x = _as(params, x)
        probe = jax.random.rademacher(key, x.shape, x.dtype) if estimated else None
        return integrate(_carried(field, params, probe), (x, jnp.zeros((), x.dtype)), 1.0, 0.0)

    def inverse(params: PyTree, z: jax.Array) -> jax.Array:
        return to_tolerance(partial(field.apply, params), _as(params, z), 0.0, 1.0).y

    return Flow(
        init=lambda key: field.init(key, jnp.zeros(()), jnp.zeros(size)),
        forward=lambda params, x: _solved(field, params, x).y,
        inverse=inverse,
        estimate=estimate,
    )


def _carried(
    field: VectorField | HollowField, params: PyTree, probe: jax.Array | None = None
) -> ode.Field:
    """The field of the state and of the logarithm of how much it spreads."""

    def both(t: jax.Array, state: Mapped) -> Mapped:
        y = state[0]
        apply: Any = partial(field.apply, params, t)
        if isinstance(field, HollowField):
            condition = partial(apply, method="condition")
            transform = partial(apply, method="transform")
            return ode.hollow_divergence(condition, transform, y)
        if probe is None:
            return ode.divergence(apply, y)
        return ode.hutchinson_divergence(apply, y, probe)

    return both


def _solved(field: VectorField | HollowField, params: PyTree, x: jax.Array) -> ode.Solution:
    x = _as(params, x)
    return to_tolerance(_carried(field, params), (x, jnp.zeros((), x.dtype)), 1.0, 0.0)


def _measure(
    field: VectorField | HollowField, params: PyTree, batch: PyTree
) -> dict[str, jax.Array]:
    found = jax.vmap(partial(_solved, field, params))(batch["x"])
    loss, evaluations = jax.vmap(_surprise)(found.y), found.evaluations
    return {
        "loss": jnp.where(found.succeeded, loss, jnp.inf),
        "function_evaluations": jnp.where(found.succeeded, evaluations, jnp.inf),
    }


def _surprise(mapped: Mapped) -> jax.Array:
    z, log_determinant = mapped
    return -jnp.sum(jax.scipy.stats.norm.logpdf(z)) - log_determinant


def _as(params: PyTree, x: jax.Array) -> jax.Array:
    """In the precision of the parameters, in which all is computed."""
    return x.astype(jax.tree.leaves(params)[0].dtype)


def _plot_table(
    name: str, inverse: Callable[[jax.Array], jax.Array], data: np.ndarray, file: Path
) -> None:
    """Data and as many samples: the two entries that are the furthest from Gaussian."""
    from ..plots import figure, save

    z = jax.random.normal(jax.random.key(0), data.shape)
    samples = np.asarray(jax.jit(jax.vmap(inverse))(z))
    shown = np.argsort(np.mean(data**4, axis=0))[-2:]
    made = figure(8.0, 4.2)
    of_data, of_samples = made.subplots(1, 2, sharex=True, sharey=True)
    for axes, title, points in ((of_data, "data", data), (of_samples, "samples", samples)):
        axes.scatter(*points[:, shown].T, s=4, lw=0, color="C0")
        axes.set(title=title, xlim=(-5, 5), ylim=(-5, 5), aspect="equal")
    made.suptitle(name)
    save(made, file)
