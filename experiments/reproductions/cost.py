"""Time of a step next to SGD's, on the same batches in one process.

Source: Chen et al. (2020), arXiv 2011.04803, which reports 1.0 to 1.6 times SGD.
"""

from collections.abc import Sequence

import jax
import numpy as np
import optax
from matplotlib.figure import Figure
from scipy.stats import gmean

from ...optimizers import adameka, meka, scale_by_kalman_filter
from .. import plots
from ..benchmark.speed import clock
from ..problem import Problem
from .claims import Claims, Reproduction, check_ratio, table
from .trainings import Makers, load, log, named, published

FULL = {  # problem, training examples, batch size; rounds of a repetition
    "problems": (("mnist", None, 128), ("cifar10", None, 128), ("cifar10-resnet32", None, 128)),
    "rounds": 20,
}
QUICK = {
    "problems": (("mnist|digits", 4000, 128), ("cifar10-small|digits-cnn", 4000, 64)),
    "rounds": 5,
}
OPTIMIZERS: Makers = {  # SGD first
    "SGD": lambda: optax.sgd(1e-3),
    "Adam": lambda: optax.adam(1e-3),
    "filter, fixed step": lambda: optax.chain(scale_by_kalman_filter(), optax.scale(-1e-3)),
    "filter, published steps": published,
    "meka": meka,
    "adameka": adameka,
}
Ratios = dict[str, dict[str, np.ndarray]]  # by problem and optimizer, of shape (repetitions,)


def run(
    problems: Sequence[tuple[str, int | None, int]], rounds: int, *, seeds: int
) -> Reproduction:
    """Time all optimizers in turns; a repetition is the median of some rounds."""
    ratios: Ratios = {}
    for names, examples, batch_size in problems:
        problem = load(names, examples)
        label = f"{problem.name}, batch {batch_size}"
        ratios[label] = compute(problem, batch_size, rounds, seeds)
    title = f"time of a step in steps of SGD, on {jax.devices()[0].device_kind}"
    rows = {
        name: {problem: gmean(by_name[name]) for problem, by_name in ratios.items()}
        for name in OPTIMIZERS
    }
    tables = {title: table("optimizer", rows)}
    return Reproduction(draw(ratios), judge(ratios), ratios, tables)


def compute(problem: Problem, batch_size: int, rounds: int, seeds: int) -> dict[str, np.ndarray]:
    """Medians of times over those of SGD."""
    clocks = []
    for name, make in OPTIMIZERS.items():
        log.info("%s, %s: compiling", problem.name, name)
        clocks.append(clock(problem, named(name, lambda _, make=make: make()), batch_size))
    # In turns, so that what else the machine does slows all of them.
    seconds = np.empty((seeds, rounds, len(clocks)))
    for index in np.ndindex(seeds, rounds):
        log.info("%s, repetition %d of %d", problem.name, index[0] + 1, seeds)
        seconds[index] = [measure() for measure in clocks]
    medians = np.median(seconds, axis=1)
    return dict(zip(OPTIMIZERS, (medians / medians[:, :1]).T, strict=True))


def judge(ratios: Ratios) -> Claims:
    """Hold the published rule and ours to what was promised of the published one."""
    return {
        f"{problem}: a step of {name} costs 1.0 to 1.6 steps of SGD": check_ratio(
            by_name[name], at_most=1.6
        )
        for problem, by_name in ratios.items()
        for name in ("filter, published steps", "meka", "adameka")
    }


def draw(ratios: Ratios) -> Figure:
    figure, (axes,) = plots.panels("Time of a step in steps of SGD", 1, 1, 8, 4.2)
    height = 0.8 / len(ratios)
    for index, (problem, by_name) in enumerate(ratios.items()):
        y = np.arange(len(by_name)) + height * (index - (len(ratios) - 1) / 2)
        middle = np.array([gmean(values) for values in by_name.values()])
        ends = np.array([(values.min(), values.max()) for values in by_name.values()]).T
        axes.barh(y, middle, height, xerr=np.abs(ends - middle), label=problem, alpha=0.8)
    axes.axvspan(1, 1.6, color="0.85", zorder=0, label="published")
    axes.set_yticks(range(len(OPTIMIZERS)), list(OPTIMIZERS))
    axes.invert_yaxis()
    axes.set_xlabel("time over SGD's (geometric mean and range of the repetitions)")
    plots.legend_below(figure, axes, len(ratios) + 1)
    return figure
