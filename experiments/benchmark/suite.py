"""What a benchmark trains on, and for how long; needs no jax."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..registry import SCHEDULES, Optimizer, Setting, find

REFERENCE = "adam"  # whose sweep and whose speed everything is compared with
LARGE = 128  # figures tell batches of at least so many examples from smaller ones
ALL = "all"  # examples of a problem, in every step
BatchSize = int | str

# The rates that a sweep may come to, each about three times the one before.
LADDER = tuple(float(f"{digit}e{power}") for power in range(-6, 2) for digit in (1, 3))[1:]


@dataclass(frozen=True)
class Size:
    """How much of a problem a profile takes.

    Attributes:
      examples: training examples, or None for all.
      steps: by batch size; several numbers of steps are as many workloads.
    """

    examples: int | None
    steps: Mapping[Any, int | tuple[int, ...]]

    def horizons(self, batch_size: BatchSize) -> tuple[int, ...]:
        """Numbers of steps; those of the next smaller batch size, or smallest, if it has none."""
        if batch_size not in self.steps:
            known = sorted(size for size in self.steps if isinstance(size, int))
            smaller = [s for s in known if not isinstance(batch_size, int) or s <= batch_size]
            batch_size = (smaller[-1:] or known[:1] or [ALL])[0]
        steps = self.steps[batch_size]
        return (steps,) if isinstance(steps, int) else steps


@dataclass(frozen=True)
class Profile:
    """How thorough a benchmark is.

    Attributes:
      description: one line.
      sizes: of each problem; the problems of the profile are its names.
      evaluations: of a training, at equal distances.
      eval_examples: training and test examples of an evaluation, at most.
      rates: how many of each baseline's grid of learning rates a sweep begins with, evenly, the
        ends included; it goes on with the neighbors of the best.
      sweep_seeds: repetitions of every setting of a baseline.
      seeds: repetitions of everything else, and of a baseline's default and best setting.
      timing_rounds: how often the speeds of two optimizers are measured in turn.
    """

    description: str
    sizes: dict[str, Size]
    evaluations: int
    eval_examples: int
    rates: int
    sweep_seeds: int
    seeds: int
    timing_rounds: int


@dataclass(frozen=True)
class Workload:
    """One problem with one batch size and number of steps: where optimizers meet.

    Attributes:
      name: in tables and files; it tells the steps where nothing else tells two apart.
      problem: name in the registry.
      batch_size: examples per step.
      steps: of every training.
      examples: training examples, or None for all.
    """

    name: str
    problem: str
    batch_size: int
    steps: int
    examples: int | None


_CLASSIC = {32: 600, 512: 200}
_LONG = {32: 6_000, 512: 2_000}
_HORIZONS = (200, 2_000, 20_000)

_EQUATIONS = {
    "neural-ode": Size(None, {64: 400}),
    "regularized-ode": Size(None, {64: 300}),
    "cnf": Size(None, {64: 600}),
    "cnf-hollow": Size(None, {64: 600}),
    "cnf-table": Size(None, {64: 400}),
    "residual-flow": Size(None, {64: 400}),
    "coupling-flow": Size(None, {64: 1_000}),
    "latent-ode": Size(None, {64: 600}),
    "latent-gru": Size(None, {64: 600}),
    "latent-sde": Size(None, {64: 600}),
}
_PACKAGES = {
    "graphs": Size(None, {64: 400}),
    "digits-sum": Size(None, {64: 600}),
    "digits-transformer": Size(None, {64: 600}),
    "digits-equivariant": Size(None, {64: 500}),
    "digits-pde": Size(None, {64: 400}),
    "digits-gan": Size(None, {64: 600}),
    "residual-table": Size(None, {64: 300}),
    "infusion": Size(None, {13: 400}),
    "clinic-ode": Size(None, {32: 300}),
    "clinic-gru": Size(None, {32: 300}),
    "clinic-filter": Size(None, {32: 300}),
    "clinic-sde": Size(None, {32: 300}),
    "digits-discrete": Size(None, {64: 600}),
    "digits-discrete-relaxed": Size(None, {64: 600}),
    "digits-hypernetwork": Size(None, {32: 600}),
}
_FULL_SIZE = {  # where a problem has a larger model or more data than its quick one
    "neural-ode": "neural-ode-mnist",
    "regularized-ode": "regularized-ode-mnist",
    "cnf": "cnf-large",
    "residual-flow": "residual-flow-large",
    "coupling-flow": "coupling-flow-large",
    "latent-ode": "latent-ode-large",
    "latent-sde": "latent-sde-lorenz",
    "graphs": "graphs-large",
}
PROFILES = {
    "smoke": Profile(
        description="minutes: whether everything works",
        sizes={
            "quadratic": Size(1024, {32: 40}),
            "digits": Size(None, {32: 40}),
        },
        evaluations=4,
        eval_examples=200,
        rates=3,
        sweep_seeds=1,
        seeds=2,
        timing_rounds=3,
    ),
    "standard": Profile(
        description="up to three hours on two cores",
        sizes={
            "quadratic": Size(4096, _CLASSIC),
            "mnist-logistic-noisy": Size(16_384, _CLASSIC),
            "digits": Size(None, _CLASSIC),
            "mnist": Size(16_384, _CLASSIC),
            "mnist-noisy": Size(16_384, _CLASSIC),
            "mnist-autoencoder": Size(16_384, _CLASSIC),
            "cifar10-small": Size(16_384, {32: 600, 512: 60}),
            "text": Size(8_000, {32: 600, 512: 50}),
            "text-gru": Size(8_000, {32: 200}),
            "regression": Size(None, {ALL: 600}),
            "poisson": Size(None, {64: 600}),
            "factorization": Size(None, {128: 600}),
            "digits-vae": Size(None, {64: 600}),
            "digits-diffusion": Size(None, {128: 600}),
            "digits-bandit": Size(None, {64: 600}),
        },
        evaluations=10,
        eval_examples=2_000,
        rates=5,
        sweep_seeds=2,
        seeds=5,
        timing_rounds=7,
    ),
    "horizons": Profile(
        description="four small problems at 200, 2,000 and 20,000 steps",
        sizes={
            "quadratic": Size(4096, {32: _HORIZONS}),
            "digits": Size(None, {32: _HORIZONS}),
            "regression": Size(None, {ALL: _HORIZONS}),
            "factorization": Size(None, {128: _HORIZONS}),
        },
        evaluations=20,
        eval_examples=2_000,
        rates=5,
        sweep_seeds=2,
        seeds=5,
        timing_rounds=7,
    ),
    "equations": Profile(
        description="differential equations and flows, for two cores",
        sizes=_EQUATIONS,
        evaluations=5,
        eval_examples=200,
        rates=5,
        sweep_seeds=2,
        seeds=5,
        timing_rounds=7,
    ),
    "packages": Profile(
        description="real data inside packages and models of many kinds, for two cores",
        sizes=_PACKAGES,
        evaluations=5,
        eval_examples=1_000,
        rates=5,
        sweep_seeds=2,
        seeds=5,
        timing_rounds=7,
    ),
    "aeon": Profile(
        description="speech and motions in the package aeon (pip install --no-deps aeon)",
        sizes={"vowels-cde": Size(None, {32: 300}), "motion-slds": Size(None, {32: 400})},
        evaluations=5,
        eval_examples=1_000,
        rates=5,
        sweep_seeds=2,
        seeds=5,
        timing_rounds=7,
    ),
    "full": Profile(
        description="for an accelerator: all data, ten times the steps",
        sizes={
            "quadratic": Size(None, _LONG),
            "mnist-logistic-noisy": Size(None, _LONG),
            "digits": Size(None, _LONG),
            "mnist": Size(None, _LONG),
            "mnist-noisy": Size(None, _LONG),
            "mnist-autoencoder": Size(None, _LONG),
            "cifar10": Size(None, {32: 8_000, 512: 4_000}),
            "text": Size(None, _LONG),
            **{
                _FULL_SIZE.get(name, name): Size(
                    None, {size: 10 * steps for size, steps in quick.steps.items()}
                )
                for name, quick in (_EQUATIONS | _PACKAGES).items()
            },
        },
        evaluations=20,
        eval_examples=10_000,
        rates=10,
        sweep_seeds=2,
        seeds=5,
        timing_rounds=7,
    ),
}


def workloads(
    profile: Profile,
    problems: Sequence[str] = (),
    batch_sizes: Sequence[BatchSize] = (),
    data_dir: Path | None = None,
) -> tuple[Workload, ...]:
    """Every problem with every batch size and horizon, unless some are named, in order.

    Args:
      profile: says how much of which problem.
      problems: of the profile, or none for all.
      batch_sizes: for every problem, or none for those of the profile.
      data_dir: folder of prepared datasets, or None for the default places.

    Example:
      >>> [one.name for one in workloads(PROFILES["horizons"], ["regression"])]
      ['regression-256-200', 'regression-256-2000', 'regression-256-20000']
    """

    def resolved(name: str, size: Size, batch_size: BatchSize) -> int:
        if isinstance(batch_size, int):
            return batch_size
        return size.examples or find(name).training_examples(data_dir)

    found = dict.fromkeys(
        (name, resolved(name, size, batch_size), steps, size.examples)
        for name, size in profile.sizes.items()
        if not problems or name in problems
        for batch_size in batch_sizes or size.steps
        for steps in size.horizons(batch_size)
    )
    times = Counter((name, batch_size) for name, batch_size, *_ in found)
    return tuple(
        Workload(
            f"{name}-{batch_size}" + (f"-{steps}" if times[name, batch_size] > 1 else ""),
            *(name, batch_size, steps, examples),
        )
        for name, batch_size, steps, examples in found
    )


def settings(profile: Profile, optimizer: Optimizer) -> list[Setting]:
    """What an optimizer is trained with at first: of a baseline part of its grid, and its default.

    Example:
      >>> from .registry import OPTIMIZERS
      >>> found = settings(PROFILES["smoke"], OPTIMIZERS["sgd"])
      >>> list(dict.fromkeys(setting["learning_rate"] for setting in found))
      [0.003, 0.1, 3.0]
    """
    if optimizer.group != "baseline":
        return list(optimizer.settings)
    grid = sorted({setting["learning_rate"] for setting in optimizer.settings})
    places = (round(i * (len(grid) - 1) / (profile.rates - 1)) for i in range(profile.rates))
    rates = {grid[place] for place in places}
    found = [setting for setting in optimizer.settings if setting["learning_rate"] in rates]
    return found if optimizer.default in found else [*found, optimizer.default]


def further(tried: Sequence[Setting], best: Iterable[Setting]) -> list[Setting]:
    """With what a sweep goes on: the next lower and higher rate of the best, unless tried.

    Where there are none, the best is between two rates that are worse, or at an end of `LADDER`.

    Args:
      tried: so far.
      best: of these, one for each way to judge.

    Example:
      >>> tried = [{"learning_rate": rate, "schedule": 0} for rate in (0.1, 0.3)]
      >>> [setting["learning_rate"] for setting in further(tried, tried[1:])]
      [0.1, 0.1, 1.0, 1.0, 1.0]
    """
    found = []
    for rate in (setting["learning_rate"] for setting in best):
        near = [one for one in LADDER if one < rate][-1:] + [one for one in LADDER if one > rate][
            :1
        ]
        found += [
            {"learning_rate": one, "schedule": schedule}
            for one in near
            for schedule in range(len(SCHEDULES))
        ]
    return [one for place, one in enumerate(found) if one not in [*tried, *found[:place]]]


def is_at_edge(tried: Sequence[Setting], chosen: Setting) -> bool:
    """Whether a learning rate is the lowest or highest of those tried: a better may lie beyond."""
    rates = [setting["learning_rate"] for setting in tried]
    return len(set(rates)) > 1 and chosen["learning_rate"] in (min(rates), max(rates))
