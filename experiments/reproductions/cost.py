"""Time of a step next to SGD's, on the same batches in one process.

Source: Chen et al. (2020), arXiv 2011.04803, which reports 1.0 to 1.6 times SGD.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import optax

from ...optimizers import adameka, meka, scale_by_kalman_filter
from ..benchmark.timing import clock
from ..lanes import Method
from ..problems import Problem
from . import drawing
from .claims import Claim, Reproduction, Table, check, short
from .registry import Report, quiet
from .trainings import load, published

SGD = "SGD"
PROMISED = 1.6


class Size(NamedTuple):
    """How much to compute: `(problem, training examples, batch size)`; rounds per repetition."""

    problems: tuple[tuple[str, int | None, int], ...]
    rounds: int


FULL = Size((("mnist", None, 128), ("cifar10", None, 128), ("cifar10-resnet32", None, 128)), 20)
QUICK = Size((("mnist", 4000, 128), ("cifar10-small", 4000, 64)), 5)


def run(out: Path, quick: bool, seeds: int, report: Report = quiet) -> Reproduction:
    """Time all optimizers in turns; a repetition is the median of some rounds."""
    size = QUICK if quick else FULL
    ratios = {}
    for name, examples, batch_size in size.problems:
        problem = load(name, quick, examples)
        ratios[f"{problem.name}, batch {batch_size}"] = compute(
            problem, batch_size, size.rounds, seeds, report
        )
    _draw(out, ratios, quick)
    return Reproduction(
        settings={**size._asdict(), "seeds": seeds, "quick": quick},
        data=short(ratios),
        claims=judge(ratios),
        tables=[_table(ratios)],
    )


def methods() -> dict[str, Callable[[], optax.GradientTransformationExtraArgs]]:
    """What is timed, SGD first."""

    def plain(
        tx: optax.GradientTransformation,
    ) -> Callable[[], optax.GradientTransformationExtraArgs]:
        return lambda: optax.with_extra_args_support(tx)

    return {
        SGD: plain(optax.sgd(1e-3)),
        "Adam": plain(optax.adam(1e-3)),
        "filter, fixed step": lambda: optax.chain(scale_by_kalman_filter(), optax.scale(-1e-3)),
        "filter, published steps": published,
        "meka": meka,
        "adameka": adameka,
    }


def compute(
    problem: Problem, batch_size: int, rounds: int, seeds: int, report: Report = quiet
) -> dict[str, np.ndarray]:
    """Medians of times over those of SGD, by method, each of shape (seeds,)."""
    clocks = {}
    for name, make in methods().items():
        report(f"{problem.name}, {name}: compiling")
        method = Method(lambda setting, steps, make=make: make())
        clocks[name] = clock(problem, method, {}, batch_size)
    # In turns, so that what else the machine does slows all of them.
    seconds = np.empty((seeds, rounds, len(clocks)))
    for index in np.ndindex(seeds, rounds):
        report(f"{problem.name}, repetition {index[0] + 1} of {seeds}")
        seconds[index] = [measure() for measure in clocks.values()]
    medians = np.median(seconds, axis=1)
    return dict(zip(clocks, (medians / medians[:, :1]).T, strict=True))


def judge(ratios: dict[str, dict[str, np.ndarray]]) -> list[Claim]:
    """Hold the published rule and ours to what was promised of the published one."""
    return [
        check(
            f"{problem}: a step of {name} costs 1.0 to {PROMISED:g} steps of SGD",
            found[name],
            at_most=PROMISED,
            ratio=True,
        )
        for problem, found in ratios.items()
        for name in ("filter, published steps", "meka", "adameka")
    ]


def _table(ratios: dict[str, dict[str, np.ndarray]]) -> Table:
    names = list(next(iter(ratios.values())))
    rows = [
        (name, *(f"{np.exp(np.log(found[name]).mean()):.2f}" for found in ratios.values()))
        for name in names
    ]
    title = f"time of a step in steps of SGD, on {jax.devices()[0].device_kind}"
    return Table(title, ("optimizer", *ratios), rows)


def _draw(out: Path, ratios: dict[str, dict[str, np.ndarray]], quick: bool) -> None:
    figure = drawing.figure("Time of a step in steps of SGD", quick, 8, 4.2)
    axes = drawing.plain(figure.add_subplot())
    height = 0.8 / len(ratios)
    for place, (problem, found) in enumerate(ratios.items()):
        y = np.arange(len(found)) + height * (place - (len(ratios) - 1) / 2)
        middle = np.array([np.exp(np.log(values).mean()) for values in found.values()])
        ends = np.array([(values.min(), values.max()) for values in found.values()]).T
        away = np.maximum(np.abs(ends - middle), 0)
        axes.barh(
            y, middle, height, xerr=away, color=drawing.CYCLE[place], label=problem, alpha=0.8
        )
    axes.axvspan(1, PROMISED, color="0.85", zorder=0, label="published")
    axes.set_yticks(range(len(methods())), list(methods()))
    axes.invert_yaxis()
    axes.set_xlabel("time over SGD's (geometric mean and range of the repetitions)")
    drawing.legend_below(figure, axes, len(ratios) + 1)
    drawing.save(figure, out, "cost")
