"""Multiples of the Newton step along the gradient: the edge of stability, and noise.

    α = c ‖g‖² / |h|,    h = g·Bg

measured on every batch. At c = 2 the model of the line says that nothing is gained or lost: the
edge. In full batch such steps keep the sharpness λ_max near 2/α; with noise they do worse than
shorter ones. Ours closes a loop on the slope after the step, along the same plain gradient.
Source: Roulet et al. (2024), arXiv 2407.06183; Cohen et al. (2021), arXiv 2103.00065.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...curvature import hvp, observe
from ...optimizers import metrics, scale_by_expected_improvement
from ..lanes import Budget, Method
from ..problems import Problem
from . import drawing
from .claims import Claim, Reproduction, Table, check, over_seeds
from .registry import Report, quiet
from .trainings import Trained, load, train

MULTIPLES = (0.5, 1.0, 2.0)
FULL_BATCH, MINIBATCH = "full batch", "minibatch"
OURS = "ours"
_ITERATIONS = 15  # of the power method
_TINY = 1e-30
_COLORS = dict(
    zip((*MULTIPLES, OURS), (drawing.SKY, drawing.BLUE, drawing.RED, drawing.GREEN), strict=True)
)


class Size(NamedTuple):
    """How much to compute: a full batch is all the examples."""

    problem: str
    examples: int | None
    batch_size: int
    steps: int
    minibatch_steps: int
    looks: int


FULL = Size("digits", None, batch_size=64, steps=2000, minibatch_steps=4000, looks=40)
QUICK = Size("digits", 500, batch_size=32, steps=200, minibatch_steps=480, looks=10)


class NewtonState(NamedTuple):
    """State of `newton_steps`: the last step size."""

    step_size: jax.Array

    def metrics(self) -> dict[str, jax.Array]:
        """For `mekax.optimizers.metrics`."""
        return {"step_size": self.step_size}


def run(out: Path, quick: bool, seeds: int, report: Report = quiet) -> Reproduction:
    """Train with multiples of the Newton step and with ours, in full batch and with noise."""
    size = QUICK if quick else FULL
    problem = load(size.problem, quick, size.examples)
    found = compute(problem, size, seeds, report)
    _draw(out, problem.name, found, quick)
    return Reproduction(
        settings={**size._asdict(), "multiples": MULTIPLES, "seeds": seeds, "quick": quick},
        data={
            regime: {
                name: {
                    "step": steps,
                    **{key: over_seeds(values) for key, values in curves.items()},
                }
                for name, (steps, curves) in methods.items()
            }
            for regime, methods in _curves(found).items()
        },
        claims=judge(found),
        tables=[_table(found)],
    )


Found = dict[str, tuple[Trained, Trained]]


def compute(problem: Problem, size: Size, seeds: int, report: Report = quiet) -> Found:
    """By regime, the trainings with the multiples, and with ours."""
    budgets = {
        FULL_BATCH: Budget(size.steps, problem.examples, size.looks, problem.examples),
        MINIBATCH: Budget(size.minibatch_steps, size.batch_size, size.looks, problem.examples),
    }
    read = gauges(problem)
    theirs = Method(lambda setting, steps: newton_steps(setting["multiple"]), gauges=read)
    ours = Method(lambda setting, steps: scale_by_expected_improvement(), gauges=read)
    settings = [{"multiple": c} for c in MULTIPLES]
    return {
        regime: (
            train(problem, theirs, settings, seeds, budget, f"multiples, {regime}", report),
            train(problem, ours, [{}], seeds, budget, f"{OURS}, {regime}", report),
        )
        for regime, budget in budgets.items()
    }


def newton_steps(multiple: jax.typing.ArrayLike) -> optax.GradientTransformationExtraArgs:
    """Steps c ‖g‖²/|h| along the gradient, no longer than the parameters."""

    def init_fn(params: Any) -> NewtonState:
        del params
        return NewtonState(jnp.zeros(()))

    def update_fn(updates, state, params=None, *, value_fn=None, **extra_args):
        assert value_fn is not None
        del state, extra_args
        norm = jnp.maximum(optax.tree.norm(updates), _TINY)
        direction = optax.tree.scale(-1 / norm, updates)
        curvature = jnp.abs(observe(value_fn, params, direction).curvature)
        newton_length = norm / jnp.maximum(curvature, _TINY)
        length = jnp.minimum(multiple * newton_length, optax.tree.norm(params))
        return optax.tree.scale(length, direction), NewtonState(length / norm)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def gauges(problem: Problem) -> Callable[[Any, Any, Any], dict[str, jax.Array]]:
    """Read the step size and the sharpness: the largest eigenvalue of the Hessian over the data."""

    def read(state: Any, params: Any, data: Any) -> dict[str, jax.Array]:
        return {
            "step size": metrics(state)["step_size"],
            "sharpness": sharpness(lambda p: problem.losses(p, data, jax.random.key(0)), params),
        }

    return read


def sharpness(value_fn: Callable[[Any], jax.Array], params: Any) -> jax.Array:
    """Largest eigenvalue of the Hessian in magnitude, by the power method."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2020), len(leaves))
    draws = [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    start = jax.tree.unflatten(structure, draws)

    def step(_: int, carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
        vector = optax.tree.scale(1 / jnp.maximum(optax.tree.norm(carry[0]), _TINY), carry[0])
        product = hvp(value_fn, params, vector)
        return product, jnp.asarray(optax.tree.vdot(vector, product))

    return jax.lax.fori_loop(0, _ITERATIONS, step, (start, jnp.zeros(())))[1]


def judge(found: Found) -> list[Claim]:
    """The edge in full batch, what noise does to it, and where ours stands."""
    full, mini = found[FULL_BATCH][0], found[MINIBATCH][0]
    one, two = MULTIPLES.index(1.0), MULTIPLES.index(2.0)
    half = full.looks.size // 2
    product = full.gauges["step size"][two] * full.gauges["sharpness"][two]
    claims = [
        check(
            "full batch: twice the Newton step trains at the edge of stability: step size × "
            "sharpness lies between 1.5 and 4 (second half, geometric mean)",
            np.exp(np.log(np.maximum(product[:, half:], 1e-9)).mean(axis=1)),
            at_least=1.5,
            at_most=4,
            ratio=True,
        ),
        check(
            "full batch: twice the Newton step ends lower than the Newton step",
            full.final()[two] / full.final()[one],
            at_most=1,
            ratio=True,
        ),
        check(
            "minibatch: twice the Newton step ends higher than the Newton step",
            mini.final()[two] / mini.final()[one],
            at_least=1,
            ratio=True,
        ),
    ]
    for regime, (theirs, ours) in found.items():
        best = theirs.final()[theirs.final().mean(axis=1).argmin()]
        claims.append(
            check(
                f"{regime}: ours ends within 10 % of the best multiple",
                ours.final()[0] / best,
                at_most=1.1,
                ratio=True,
            )
        )
    return claims


def _curves(found: Found) -> dict[str, dict[Any, tuple[np.ndarray, dict[str, np.ndarray]]]]:
    """By regime and method: steps, and curves of shape (seeds, looks) by name."""
    curves = {}
    for regime, (theirs, ours) in found.items():
        lanes = [(c, theirs, k) for k, c in enumerate(MULTIPLES)] + [(OURS, ours, 0)]
        curves[regime] = {
            name: (
                trained.looks,
                {
                    "train loss": trained.measures["train_loss"][k],
                    "sharpness": trained.gauges["sharpness"][k],
                    "step size": trained.gauges["step size"][k],
                },
            )
            for name, trained, k in lanes
        }
    return curves


def _label(name: Any) -> str:
    return name if name == OURS else f"{name:g} × Newton"


def _table(found: Found) -> Table:
    rows = [
        (
            f"{regime}, {_label(name)}",
            f"{curves['train loss'][:, -1].mean():.3g}",
            f"{np.median(curves['sharpness'][:, -1]):.3g}",
            f"{np.median((curves['sharpness'] * curves['step size'])[:, -1]):.3g}",
        )
        for regime, methods in _curves(found).items()
        for name, (_, curves) in methods.items()
    ]
    header = ("steps", "train loss", "sharpness", "step size × sharpness")
    return Table("at the end, mean and medians over the seeds", header, rows)


def _draw(out: Path, problem: str, found: Found, quick: bool) -> None:
    figure = drawing.figure(f"Newton steps at the edge of stability, {problem}", quick, 11, 6.6)
    places = np.reshape(np.array(drawing.grid(figure, 3, 6), object), (2, 3))
    for row, (regime, methods) in zip(places, _curves(found).items(), strict=True):
        for name, (steps, curves) in methods.items():
            product = curves["sharpness"] * curves["step size"]
            shown = (curves["train loss"], np.abs(curves["sharpness"]), np.abs(product))
            for axes, values in zip(row, shown, strict=True):
                drawing.band(axes, steps, values, _COLORS[name], _label(name))
        row[2].axhline(2, color="0.3", ls=":", lw=1.2)
        for axes, title in zip(
            row, ("train loss", "sharpness", "step size × sharpness"), strict=True
        ):
            axes.set(yscale="log", title=f"{regime}: {title}", xlabel="step")
            axes.title.set_fontsize(10)
    drawing.legend_below(figure, places[0, 0], len(_COLORS))
    drawing.save(figure, out, "edge")
