"""What a comparison comes to: one row per optimizer, and the best of each swept grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .intervals import Interval, bootstrap_mean
from .optimizer_specs import OptimizerSpec
from .runs import Run


@dataclass(frozen=True)
class Row:
    """One optimizer's runs on one problem, over the seeds.

    Attributes:
      label: name in tables and figures.
      spec: the optimizer.
      runs: that ended by themselves, or, if there are none, interrupted ones.
    """

    label: str
    spec: OptimizerSpec
    runs: tuple[Run, ...]

    @property
    def diverged(self) -> int:
        """Number of runs whose loss became infinite or not a number."""
        return sum(run.status == "diverged" for run in self.runs)

    @property
    def interrupted(self) -> bool:
        """Whether the row shows unfinished runs."""
        return any(run.status == "interrupted" for run in self.runs)

    def final(self, measure: str) -> Interval | None:
        """Mean over the seeds that did not diverge, with its interval; None if all did."""
        values = [run.final(measure) for run in self.runs]
        finite = [value for value in values if math.isfinite(value)]
        return bootstrap_mean(finite) if finite else None

    def seconds(self) -> Interval:
        """Training time of a run."""
        return bootstrap_mean([run.seconds for run in self.runs])

    def steps_per_second(self) -> float:
        """Speed, over all runs."""
        seconds = sum(run.seconds for run in self.runs)
        return sum(run.steps for run in self.runs) / seconds if seconds else math.nan

    def compile_seconds(self) -> float:
        """Time spent compiling, once for all runs."""
        return sum(run.compile_seconds for run in self.runs)

    def step_size_range(self) -> tuple[float, float] | None:
        """5th and 95th percentile of the step size over all steps of all runs."""
        sizes = np.concatenate([run.record("step_size") for run in self.runs])
        sizes = sizes[np.isfinite(sizes)]
        if not sizes.size:
            return None
        low, high = np.percentile(sizes, [5, 95])
        return float(low), float(high)

    def measures(self) -> list[str]:
        """Names of the measures of success."""
        return list(self.runs[0].evaluations[0].values)


@dataclass(frozen=True)
class Sweep:
    """The learning rates tried for one kind of baseline.

    Attributes:
      kind: of the optimizer.
      specs: those of which all seeds ended.
      train_losses: mean final train loss of each; infinite if a seed diverged.
      seconds: training time of all runs of the sweep.
    """

    kind: str
    specs: tuple[OptimizerSpec, ...]
    train_losses: tuple[float, ...]
    seconds: float

    @property
    def best(self) -> OptimizerSpec:
        """Spec with the lowest mean final train loss."""
        return self.specs[int(np.argmin(self.train_losses))]

    def as_dict(self) -> dict[str, Any]:
        """Everything, for a file."""
        return {
            "kind": self.kind,
            "learning_rates": [spec.learning_rate for spec in self.specs],
            "train_losses": self.train_losses,
            "best": self.best.label,
            "seconds": self.seconds,
        }


def rows(runs: Sequence[Run], specs: Sequence[OptimizerSpec]) -> list[Row]:
    """One row per spec that has been run, in their order."""
    found = [row(runs, spec, spec.label) for spec in specs]
    return [one for one in found if one is not None]


def row(runs: Sequence[Run], spec: OptimizerSpec, label: str) -> Row | None:
    """The row of one spec, or None if nothing of it has been run."""
    recorded = [run for run in runs if run.spec == spec and run.evaluations]
    ended = [run for run in recorded if run.ended]
    chosen = tuple(ended or recorded)
    return Row(label, spec, chosen) if chosen else None


def sweep(runs: Sequence[Run], specs: Sequence[OptimizerSpec], seeds: int) -> Sweep | None:
    """Summary of the runs of one kind's grid; None if no learning rate has all its seeds."""
    of_grid = [run for run in runs if run.spec in specs]
    complete, losses = [], []
    for spec in specs:
        ended = [run for run in of_grid if run.spec == spec and run.ended]
        if len(ended) == seeds:
            complete.append(spec)
            losses.append(float(np.mean([run.final("train_loss") for run in ended])))
    if not complete:
        return None
    seconds = sum(run.seconds for run in of_grid)
    return Sweep(specs[0].kind, tuple(complete), tuple(losses), seconds)
