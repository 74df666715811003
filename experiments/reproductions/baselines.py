"""Tuned SGD, momentum and Adam against the published rule and ours.

The best rate of a baseline is that of the lowest final train loss on the very seeds that are
reported, which is in its favor.
Source: Chen et al. (2020), arXiv 2011.04803, section 6.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...optimizers import adameka
from ..intervals import bootstrap_mean
from ..lanes import Budget, Method
from ..problems import Problem
from . import drawing
from .claims import Claim, Reproduction, Table, check, over_seeds
from .registry import Report, quiet
from .trainings import load, published, train

RATES = {
    "SGD": (0.03, 0.1, 0.3),
    "momentum": (0.01, 0.03, 0.1),
    "Adam": (1e-3, 3e-3, 1e-2),
}
MORE_RATES = {"SGD": (0.01, 1.0), "momentum": (0.003, 0.3), "Adam": (3e-4, 3e-2)}
PUBLISHED, OURS = "published rule", "adameka"
MATCH = 1.1
LOST = 0.01
_COLORS = dict(
    zip(
        (*RATES, PUBLISHED, OURS),
        (drawing.ORANGE, drawing.SKY, drawing.BLACK, drawing.RED, drawing.GREEN),
        strict=True,
    )
)


class Size(NamedTuple):
    """How much to compute: `(problem, training examples, batch size, steps)`, and the rates."""

    problems: tuple[tuple[str, int | None, int, int], ...]
    rates: Mapping[str, tuple[float, ...]]
    looks: int
    judged: int


FULL = Size(
    problems=(
        ("mnist", None, 128, 4680),
        ("cifar10", None, 128, 7800),
        ("cifar10-resnet32", None, 128, 15600),
    ),
    rates={name: tuple(sorted((*rates, *MORE_RATES[name]))) for name, rates in RATES.items()},
    looks=20,
    judged=5000,
)
QUICK = Size(
    problems=(
        ("mnist", 4000, 32, 200),
        ("cifar10-small", 4000, 32, 120),
        ("cifar10-resnet-small", 4000, 32, 120),
    ),
    rates=RATES,
    looks=8,
    judged=500,
)


class Curves(NamedTuple):
    """One optimizer on one problem, each array of shape (seeds, looks)."""

    rate: float | None
    looks: np.ndarray
    train_loss: np.ndarray
    test_accuracy: np.ndarray


def run(out: Path, quick: bool, seeds: int, report: Report = quiet) -> Reproduction:
    """Sweep the baselines, train both rules, and compare where they end."""
    size = QUICK if quick else FULL
    found = {}
    for name, examples, batch_size, steps in size.problems:
        problem = load(name, quick, examples, size.judged)
        budget = Budget(steps, batch_size, size.looks, size.judged)
        label = name if problem.name == name else f"{problem.name} for {name}"
        found[label] = compute(problem, budget, size.rates, seeds, report)
    _draw(out, found, quick)
    return Reproduction(
        settings={**size._asdict(), "seeds": seeds, "quick": quick},
        data={
            problem: {
                name: {
                    "rate": curves.rate,
                    "step": curves.looks,
                    "train loss": over_seeds(curves.train_loss),
                    "test accuracy": over_seeds(curves.test_accuracy),
                }
                for name, curves in methods.items()
            }
            for problem, methods in found.items()
        },
        claims=[claim for problem, methods in found.items() for claim in judge(problem, methods)],
        tables=[_table(problem, methods) for problem, methods in found.items()],
    )


def compute(
    problem: Problem,
    budget: Budget,
    rates: Mapping[str, tuple[float, ...]],
    seeds: int,
    report: Report = quiet,
) -> dict[str, Curves]:
    """Curves by optimizer, of the baselines at their best rates."""
    settings = [
        {"kind": float(kind), "rate": rate}
        for kind, swept in enumerate(rates.values())
        for rate in swept
    ]
    swept = train(problem, Method(baseline), settings, seeds, budget, "baselines", report)
    ends = swept.final().mean(axis=1)
    curves = {}
    for kind, name in enumerate(rates):
        best = min(
            (k for k, setting in enumerate(settings) if setting["kind"] == kind),
            key=lambda k: ends[k],
        )
        curves[name] = Curves(
            settings[best]["rate"],
            swept.looks,
            swept.measures["train_loss"][best],
            swept.measures["test_accuracy"][best],
        )
    for name, make in ((PUBLISHED, published), (OURS, adameka)):
        method = Method(lambda setting, steps, make=make: make())
        trained = train(problem, method, [{}], seeds, budget, name, report)
        measures = trained.measures
        curves[name] = Curves(
            None, trained.looks, measures["train_loss"][0], measures["test_accuracy"][0]
        )
    return curves


def baseline(setting: Mapping[str, Any], steps: int) -> optax.GradientTransformationExtraArgs:
    """SGD, momentum or Adam with a constant rate: one program for all, as which is traced."""
    del steps
    kinds = (optax.identity(), optax.trace(decay=0.9), optax.scale_by_adam())

    def init_fn(params: Any) -> Any:
        return tuple(kind.init(params) for kind in kinds)

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        both = [kind.update(updates, s, params) for kind, s in zip(kinds, state, strict=True)]
        directions = [direction for direction, _ in both]
        chosen = jax.tree.map(
            lambda *leaves: -setting["rate"] * jnp.stack(leaves)[jnp.int32(setting["kind"])],
            *directions,
        )
        return chosen, tuple(s for _, s in both)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def judge(problem: str, curves: dict[str, Curves]) -> list[Claim]:
    """Compare both rules with the best of the tuned baselines."""
    baselines = [c for c in curves.values() if c.rate is not None]
    lowest = min((_end(c.train_loss) for c in baselines), key=np.mean)
    highest = max((_end(c.test_accuracy) for c in baselines), key=np.mean)
    claims = []
    for name in (PUBLISHED, OURS):
        claims += [
            check(
                f"{problem}: {name} matches the best tuned baseline in train loss (at most "
                f"{MATCH:g} times)",
                _end(curves[name].train_loss) / lowest,
                at_most=MATCH,
                ratio=True,
            ),
            check(
                f"{problem}: {name} matches the best tuned baseline in test accuracy (at most "
                f"{LOST:g} less)",
                _end(curves[name].test_accuracy) - highest,
                at_least=-LOST,
            ),
        ]
    return claims


def _end(values: np.ndarray) -> np.ndarray:
    """Mean over the last quarter of the looks, by seed; infinite where it is not finite."""
    last = values[:, -max(1, values.shape[1] // 4) :].mean(axis=1)
    return np.where(np.isfinite(last), last, np.inf)


def _table(problem: str, methods: dict[str, Curves]) -> Table:
    def cell(values: np.ndarray, form: str) -> str:
        ends = _end(values)
        if not np.isfinite(ends).all():
            return "diverged"
        mean, low, high = bootstrap_mean(ends.tolist())
        return f"{mean:{form}} [{low:{form}}, {high:{form}}]"

    rows = [
        (
            name,
            "–" if curves.rate is None else f"{curves.rate:g}",
            cell(curves.train_loss, ".3g"),
            cell(curves.test_accuracy, ".1%"),
        )
        for name, curves in methods.items()
    ]
    header = ("optimizer", "best rate", "train loss", "test accuracy")
    return Table(f"{problem}: mean over the seeds [95 % interval], last quarter", header, rows)


def _draw(out: Path, found: dict[str, dict[str, Curves]], quick: bool) -> None:
    figure = drawing.figure("Tuned baselines, the published rule and ours", quick, 12, 6.6)
    places = np.reshape(np.array(drawing.grid(figure, len(found), 2 * len(found)), object), (2, -1))
    for (losses, accuracies), (problem, methods) in zip(places.T, found.items(), strict=True):
        for name, curves in methods.items():
            color = _COLORS[name]
            drawing.band(losses, curves.looks, curves.train_loss, color, name)
            drawing.band(accuracies, curves.looks, 100 * curves.test_accuracy, color, name)
        losses.set(yscale="log", title=f"{problem}: train loss")
        accuracies.set(title=f"{problem}: test accuracy (%)", xlabel="step")
        for axes in (losses, accuracies):
            axes.title.set_fontsize(9)
    drawing.legend_below(figure, places[0, 0], len(_COLORS))
    drawing.save(figure, out, "baselines")
