"""Structures of the filter's covariance, and constants of its moving averages.

Source: Chen et al. (2020), arXiv 2011.04803, section 5, which found scalar variances most stable
and the constant unimportant between 0.9 and 0.999.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optax

from ...curvature import COVARIANCES
from ...optimizers import meka
from ..lanes import Budget, Method
from ..problems import Problem
from . import drawing
from .claims import Claim, Reproduction, Table, check, short
from .registry import Report, quiet
from .trainings import load, published, train

DECAYS = (0.9, 0.99, 0.999)
PUBLISHED, OURS = "published steps", "our steps"
RULES: dict[str, Callable[..., optax.GradientTransformationExtraArgs]] = {
    PUBLISHED: published,
    OURS: meka,
}
INSENSITIVE = 1.2
AS_GOOD = 1.1


class Size(NamedTuple):
    """How much to compute."""

    problem: str
    examples: int | None
    batch_size: int
    steps: int
    judged: int


FULL = Size("mnist", None, batch_size=128, steps=2300, judged=5000)
QUICK = Size("mnist", 4000, batch_size=32, steps=120, judged=500)


def run(out: Path, quick: bool, seeds: int, report: Report = quiet) -> Reproduction:
    """Train with every structure and every constant."""
    size = QUICK if quick else FULL
    problem = load(size.problem, quick, size.examples, size.judged)
    losses = compute(problem, size, seeds, report)
    _draw(out, problem.name, losses, quick)
    return Reproduction(
        settings={**size._asdict(), "problem": problem.name, "seeds": seeds, "quick": quick},
        data={"decay": DECAYS, "train loss": short(losses)},
        claims=judge(losses),
        tables=[_table(losses)],
    )


Losses = dict[str, dict[str, np.ndarray]]


def compute(problem: Problem, size: Size, seeds: int, report: Report = quiet) -> Losses:
    """Final train losses by rule and structure, each of shape (decays, seeds)."""
    budget = Budget(size.steps, size.batch_size, looks=4, judged=size.judged)
    settings = [{"decay": decay} for decay in DECAYS]
    return {
        rule: {
            structure: train(
                problem,
                Method(
                    lambda setting, steps, make=make, structure=structure: make(
                        covariance=structure, decay=setting["decay"]
                    )
                ),
                settings,
                seeds,
                budget,
                f"{rule}, {structure}",
                report,
            ).final()
            for structure in COVARIANCES
        }
        for rule, make in RULES.items()
    }


def judge(losses: Losses) -> list[Claim]:
    """Compare the largest loss with the smallest, over constants and over structures."""
    claims = []
    for rule, found in losses.items():
        logs = np.log(np.stack(list(found.values())))  # (structures, decays, seeds)
        claims += [
            check(
                f"{rule}: insensitive to the constant of the moving averages: over 0.9, 0.99 and "
                f"0.999 the largest train loss is at most {INSENSITIVE:g} times the smallest (mean "
                "over the structures)",
                np.exp(np.ptp(logs, axis=1).mean(axis=0)),
                at_most=INSENSITIVE,
                ratio=True,
            ),
            check(
                f"{rule}: scalar variances are as good as finer ones: at most {AS_GOOD:g} times "
                "the train loss of the better of the others (mean over the constants)",
                np.exp((logs[0] - logs[1:].min(axis=0)).mean(axis=0)),
                at_most=AS_GOOD,
                ratio=True,
            ),
        ]
    return claims


def _table(losses: Losses) -> Table:
    rows = [
        (f"{rule}, {structure}", *(f"{loss:.4g}" for loss in values.mean(axis=1)))
        for rule, found in losses.items()
        for structure, values in found.items()
    ]
    header = ("filter", *(f"decay {decay:g}" for decay in DECAYS))
    return Table("final train loss, mean over the seeds", header, rows)


def _draw(out: Path, problem: str, losses: Losses, quick: bool) -> None:
    figure = drawing.figure(f"Structure of the covariance, {problem}", quick, 9, 4.2)
    places = drawing.grid(figure, 2, len(losses))
    x = np.arange(len(DECAYS))
    for axes, (rule, found) in zip(places, losses.items(), strict=True):
        for structure, color in zip(found, drawing.CYCLE, strict=False):
            drawing.band(axes, x, found[structure].T, color, structure)
            axes.plot(x, np.median(found[structure], axis=1), "o", color=color, ms=5)
        axes.set_xticks(x, [f"{decay:g}" for decay in DECAYS])
        axes.set(yscale="log", title=rule, xlabel="constant of the moving averages")
    places[0].set_ylabel("final train loss")
    low = min(axes.get_ylim()[0] for axes in places)
    high = max(axes.get_ylim()[1] for axes in places)
    for axes in places:
        axes.set_ylim(low, high)
    drawing.legend_below(figure, places[0], 3)
    drawing.save(figure, out, "covariance")
