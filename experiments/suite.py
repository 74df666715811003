"""What a benchmark trains on, and for how long; needs no jax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .registry import Optimizer, Setting

REFERENCE = "adam"  # whose sweep and whose speed everything is compared with
LARGE = 128  # batches of at least so many examples take the smaller number of steps


@dataclass(frozen=True)
class Size:
    """How much of a problem a profile takes.

    Attributes:
      examples: training examples, or None for all.
      small_batch_steps: steps with small batches.
      large_batch_steps: steps with large batches.
    """

    examples: int | None
    small_batch_steps: int
    large_batch_steps: int


@dataclass(frozen=True)
class Profile:
    """How thorough a benchmark is.

    Attributes:
      description: one line.
      sizes: of each problem; the problems of the profile are its names.
      batch_sizes: of every problem, unless others are asked for.
      evaluations: of a training, at equal distances.
      eval_examples: training and test examples of an evaluation, at most.
      rates: how many of each baseline's grid of learning rates, evenly, the largest included.
      sweep_seeds: repetitions of every setting of a baseline.
      seeds: repetitions of everything else, and of a baseline's default and best setting.
      timing_rounds: how often the speeds of two optimizers are measured in turn.
    """

    description: str
    sizes: dict[str, Size]
    batch_sizes: tuple[int, ...]
    evaluations: int
    eval_examples: int
    rates: int
    sweep_seeds: int
    seeds: int
    timing_rounds: int


@dataclass(frozen=True)
class Workload:
    """One problem with one batch size: where optimizers meet.

    Attributes:
      problem: name in the registry.
      batch_size: examples per step.
      steps: of every training.
      examples: training examples, or None for all.
    """

    problem: str
    batch_size: int
    steps: int
    examples: int | None

    @property
    def name(self) -> str:
        """Name in tables and files."""
        return f"{self.problem}-{self.batch_size}"


PROFILES = {
    "smoke": Profile(
        description="minutes: whether everything works",
        sizes={
            "quadratic": Size(1024, 40, 20),
            "digits": Size(None, 40, 20),
        },
        batch_sizes=(32,),
        evaluations=4,
        eval_examples=200,
        rates=3,
        sweep_seeds=1,
        seeds=2,
        timing_rounds=3,
    ),
    "standard": Profile(
        description="two hours on two cores",
        sizes={
            "quadratic": Size(4096, 600, 200),
            "mnist-logistic-noisy": Size(16_384, 600, 200),
            "digits": Size(None, 600, 200),
            "mnist": Size(16_384, 600, 200),
            "mnist-noisy": Size(16_384, 600, 200),
            "mnist-autoencoder": Size(16_384, 600, 200),
            "cifar10-small": Size(16_384, 600, 60),
            "text": Size(8_000, 600, 50),
        },
        batch_sizes=(32, 512),
        evaluations=10,
        eval_examples=2_000,
        rates=7,
        sweep_seeds=2,
        seeds=5,
        timing_rounds=7,
    ),
    "equations": Profile(
        description="differential equations and flows, for two cores",
        sizes={
            "neural-ode": Size(None, 400, 100),
            "regularized-ode": Size(None, 300, 100),
            "cnf": Size(None, 600, 200),
            "cnf-hollow": Size(None, 600, 200),
            "cnf-table": Size(None, 400, 100),
            "residual-flow": Size(None, 400, 100),
            "coupling-flow": Size(None, 1_000, 300),
            "latent-ode": Size(None, 600, 200),
            "latent-gru": Size(None, 600, 200),
            "latent-sde": Size(None, 600, 200),
        },
        batch_sizes=(64,),
        evaluations=5,
        eval_examples=200,
        rates=7,
        sweep_seeds=2,
        seeds=5,
        timing_rounds=7,
    ),
    "full": Profile(
        description="for an accelerator: all data, ten times the steps",
        sizes={
            "quadratic": Size(None, 6_000, 2_000),
            "mnist-logistic-noisy": Size(None, 6_000, 2_000),
            "digits": Size(None, 6_000, 2_000),
            "mnist": Size(None, 6_000, 2_000),
            "mnist-noisy": Size(None, 6_000, 2_000),
            "mnist-autoencoder": Size(None, 6_000, 2_000),
            "cifar10": Size(None, 8_000, 4_000),
            "text": Size(None, 6_000, 2_000),
        },
        batch_sizes=(32, 512),
        evaluations=20,
        eval_examples=10_000,
        rates=7,
        sweep_seeds=2,
        seeds=5,
        timing_rounds=7,
    ),
}


def workloads(
    profile: Profile, problems: Sequence[str] = (), batch_sizes: Sequence[int] = ()
) -> tuple[Workload, ...]:
    """Every problem with every batch size, unless some are named, in the order of the profile."""
    return tuple(
        Workload(
            name,
            batch_size,
            size.small_batch_steps if batch_size < LARGE else size.large_batch_steps,
            size.examples,
        )
        for name, size in profile.sizes.items()
        if not problems or name in problems
        for batch_size in batch_sizes or profile.batch_sizes
    )


def settings(profile: Profile, optimizer: Optimizer) -> list[Setting]:
    """What an optimizer is trained with: of a baseline part of its grid, and its default.

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


def is_at_edge(tried: Sequence[Setting], chosen: Setting) -> bool:
    """Whether a learning rate is the lowest or highest of those tried: a better may lie beyond."""
    rates = [setting["learning_rate"] for setting in tried]
    return len(set(rates)) > 1 and chosen["learning_rate"] in (min(rates), max(rates))
