"""Steps of another length than the chosen ones: is the chosen length the best of its multiples?

Every step is multiplied by c. The rules of the publication do not notice. Ours closes a loop on
what its steps lead to and would undo any factor, so the factor is applied to the step sizes of a
twin, which trains undisturbed on the same batches: what is asked is whether the whole sequence of
step sizes is too long or too short.
Source: Chen et al. (2020), arXiv 2011.04803, section 6.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import optax

from ..benchmark.replayed import replayed
from ..lanes import Budget, Method
from ..problems import Problem
from . import drawing
from .claims import Claim, Reproduction, Table, check, short
from .registry import Report, quiet
from .trainings import load, published, train

PI, EI, QUADRATIC, OURS = "PI", "EI", "quadratic", "ours"
ACQUISITIONS = {
    PI: "probability_of_improvement",
    EI: "expected_improvement",
    QUADRATIC: "expected_decrease",
}
RULES = (PI, EI, QUADRATIC, OURS)
WORST = 4.0  # times the best loss, at which the picture ends


class Size(NamedTuple):
    """How much to compute: `(problem, training examples, batch size, steps)`, multiples."""

    problems: tuple[tuple[str, int | None, int, int], ...]
    multiples: tuple[float, ...]
    judged: int


FULL = Size(
    problems=(("mnist", None, 128, 2300), ("cifar10", None, 128, 1900)),
    multiples=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    judged=5000,
)
QUICK = Size(
    problems=(("mnist", 4000, 32, 160), ("cifar10-small", 4000, 32, 120)),
    multiples=(0.03, 0.1, 0.3, 1.0, 3.0),
    judged=500,
)


def run(out: Path, quick: bool, seeds: int, report: Report = quiet) -> Reproduction:
    """Train with multiples of the steps of four rules."""
    size = QUICK if quick else FULL
    losses = {}
    for name, examples, batch_size, steps in size.problems:
        problem = load(name, quick, examples, size.judged)
        budget = Budget(steps, batch_size, looks=4, judged=size.judged)
        losses[problem.name] = compute(problem, budget, size.multiples, seeds, report)
    _draw(out, size.multiples, losses, quick)
    return Reproduction(
        settings={**size._asdict(), "seeds": seeds, "quick": quick},
        data={"multiple": size.multiples, "train loss": short(losses)},
        claims=[c for name, found in losses.items() for c in judge(name, size.multiples, found)],
        tables=[_table(name, size.multiples, found) for name, found in losses.items()],
    )


def compute(
    problem: Problem,
    budget: Budget,
    multiples: tuple[float, ...],
    seeds: int,
    report: Report = quiet,
) -> dict[str, np.ndarray]:
    """Final train losses by rule, each of shape (multiples, seeds)."""
    settings = [{"multiple": c} for c in multiples]
    methods = {
        rule: Method(
            lambda s, steps, name=name: optax.chain(published(name), optax.scale(s["multiple"]))
        )
        for rule, name in ACQUISITIONS.items()
    }
    methods[OURS] = Method(lambda s, steps: replayed(s["multiple"]))
    return {
        rule: train(problem, method, settings, seeds, budget, rule, report).final()
        for rule, method in methods.items()
    }


def judge(problem: str, multiples: tuple[float, ...], losses: dict[str, np.ndarray]) -> list[Claim]:
    """Where the best multiple of every seed lies."""
    best = {rule: np.asarray(multiples)[found.argmin(axis=0)] for rule, found in losses.items()}
    lowest = np.exp(np.log(losses[OURS]).mean(axis=1).min())
    return [
        check(
            f"{problem}: PI needs no other length than it chooses: the best multiple lies between "
            "0.5 and 2",
            best[PI],
            at_least=0.5,
            at_most=2,
            ratio=True,
        ),
        check(
            f"{problem}: the quadratic rule steps too far: its best multiple is at most 0.1",
            best[QUADRATIC],
            at_most=0.1 * (1 + 1e-6),
            ratio=True,
        ),
        check(
            f"{problem}: ours needs no other length than it chooses: the best multiple lies "
            "between 0.5 and 2",
            best[OURS],
            at_least=0.5,
            at_most=2,
            ratio=True,
        ),
        check(
            f"{problem}: ours as it is ends within 10 % of its best multiple",
            losses[OURS][multiples.index(1.0)] / lowest,
            at_most=1.1,
            ratio=True,
        ),
    ]


def _table(problem: str, multiples: tuple[float, ...], losses: dict[str, np.ndarray]) -> Table:
    return Table(
        f"{problem}: final train loss, mean over the seeds, by multiple of the chosen step",
        ("rule", *(f"× {c:g}" for c in multiples)),
        [(rule, *(f"{x:.4g}" for x in found.mean(axis=1))) for rule, found in losses.items()],
    )


def _draw(
    out: Path, multiples: tuple[float, ...], losses: dict[str, dict[str, np.ndarray]], quick: bool
) -> None:
    figure = drawing.figure("Multiples of the chosen steps", quick, 10, 4.6)
    places = drawing.grid(figure, 2, len(losses))
    for axes, (problem, found) in zip(places, losses.items(), strict=True):
        lowest = min(float(values.min()) for values in found.values())
        highest = min(WORST * lowest, max(float(v[np.isfinite(v)].max()) for v in found.values()))
        for rule, color in zip(RULES, drawing.CYCLE, strict=False):
            values = np.minimum(found[rule], 2 * highest).T
            drawing.band(axes, np.asarray(multiples), values, color, rule)
            axes.plot(multiples, np.median(values, axis=0), "o", color=color, ms=4)
        axes.axvline(1, color="0.4", lw=0.8, ls=":")
        axes.set(xscale="log", yscale="log", title=problem, xlabel="multiple c of the chosen step")
        axes.set_ylim(0.9 * lowest, 1.1 * highest)
    places[0].set_ylabel("final train loss")
    drawing.legend_below(figure, places[0], len(RULES))
    drawing.save(figure, out, "step-scaling")
