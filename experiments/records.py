"""What a training records: growing while it trains, and as columns of tables in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from .registry import Setting

PyTree = Any
LAST, AVERAGE = "last", "average"


class Run(NamedTuple):
    """What is trained: a setting of the optimizer, and the seed of parameters, data and keys."""

    setting: Setting
    seed: int


@dataclass(frozen=True)
class Records:
    """What a training recorded, as columns of tables with one row per evaluation or per step.

    Attributes:
      optimizer: its name.
      runs: settings and seeds.
      status: of each run, `finished`, `diverged` or `interrupted`.
      compile_seconds: time spent compiling; 0 where an earlier training had done it.
      evaluations: columns `run` (its index), `seed`, the numbers of the setting, `iterate` (`last`
        or `average`), `step`, `seconds`, `train_loss`, `test_loss`, …, and metrics.
      steps: columns `run`, `seed`, the numbers of the setting, `step` (from 1), `seconds`, `loss`
        (of the batch, before the step), and, where every step is recorded, metrics.
      params: where each run was evaluated at its end, or None of those that had not begun.
    """

    optimizer: str
    runs: tuple[Run, ...]
    status: tuple[str, ...]
    compile_seconds: float
    evaluations: dict[str, np.ndarray]
    steps: dict[str, np.ndarray]
    params: tuple[PyTree, ...] = ()

    def array(self, name: str, iterate: str = LAST) -> np.ndarray:
        """A column as an array of shape (settings, seeds, evaluations), or (…, steps).

        Args:
          name: of a column; `loss` and what else only steps have is taken from them.
          iterate: where it was evaluated.

        Raises:
          ValueError: unless the runs are all settings with all seeds, settings first.
        """
        settings = list(dict.fromkeys(tuple(run.setting.items()) for run in self.runs))
        seeds = list(dict.fromkeys(run.seed for run in self.runs))
        product = [(setting, seed) for setting in settings for seed in seeds]
        if [(tuple(run.setting.items()), run.seed) for run in self.runs] != product:
            raise ValueError("mekax: expected runs of all settings with all seeds, settings first.")
        if name in self.evaluations:
            values = self.evaluations[name][self.evaluations["iterate"] == iterate]
        else:
            values = self.steps[name]
        return values.reshape(len(settings), len(seeds), -1)


@dataclass
class Progress:
    """What the runs that are trained at present have recorded; it grows while they train.

    Attributes:
      runs: one, or those that are vectorized.
      fraction: done of the whole training, all runs together.
      step: steps done.
      seconds: that these steps took.
      evaluations: `step`, `seconds`, and by iterate values by name, each of shape (runs,).
      chunks: records of consecutive steps by name, each of shape (runs, steps).
      status: `running`, `finished`, `diverged` or `interrupted`.
      params: where it was evaluated at the end, with a leading axis of runs.
    """

    runs: Sequence[Run]
    fraction: float = 0.0
    step: int = 0
    seconds: float = 0.0
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    chunks: list[dict[str, np.ndarray]] = field(default_factory=list)
    status: str = "running"
    params: PyTree = None

    def series(self, run: int = 0) -> dict[str, np.ndarray]:
        """What was recorded at each step of one of the runs, by name."""
        names = self.chunks[0] if self.chunks else ()
        return {n: np.concatenate([chunk[n][run] for chunk in self.chunks]) for n in names}

    def newest(self, run: int = 0) -> dict[str, float]:
        """What was recorded at the newest step of one of the runs, by name."""
        return {n: values[run][-1] for n, values in self.chunks[-1].items()} if self.chunks else {}

    def measures(self, run: int = 0) -> dict[str, float]:
        """The newest evaluation of the last iterate of one of the runs."""
        newest = self.evaluations[-1][LAST] if self.evaluations else {}
        return {name: float(values[run]) for name, values in newest.items()}


def tabulate(
    optimizer: str, runs: tuple[Run, ...], trained: Sequence[Progress], compile_seconds: float
) -> Records:
    """The tables of all runs, one below the other."""
    evaluations, steps, status, params = [], [], [], []
    for group in trained:
        for place, run in enumerate(group.runs):
            names = {"run": len(status), **run.setting, "seed": run.seed}
            found = _evaluation_rows(group, place)
            evaluations += [{**names, **row} for row in found]
            if group.chunks:
                series = group.series(place)
                count = len(series["loss"])
                same = {name: np.full(count, value) for name, value in names.items()}
                steps.append({**same, "step": np.arange(1, count + 1), **series})
            diverged = group.status == "finished" and not np.isfinite(
                group.measures(place)["train_loss"]
            )
            status.append("diverged" if diverged else group.status)
            ended = None
            if group.params is not None:
                ended = jax.tree.map(lambda leaf, place=place: leaf[place], group.params)
            params.append(ended)
    return Records(
        optimizer=optimizer,
        runs=runs[: len(status)],
        status=tuple(status),
        compile_seconds=compile_seconds,
        evaluations=_columns(evaluations),
        steps={name: np.concatenate([s[name] for s in steps]) for name in (steps or [()])[0]},
        params=tuple(params),
    )


def _evaluation_rows(group: Progress, place: int) -> list[dict[str, Any]]:
    """One row per iterate and evaluation of one run."""
    iterates = [
        name for name in (LAST, AVERAGE) if group.evaluations and name in group.evaluations[0]
    ]
    return [
        {
            "iterate": iterate,
            "step": evaluation["step"],
            "seconds": evaluation["seconds"],
            **{name: values[place] for name, values in evaluation[iterate].items()},
            **{name: values[place] for name, values in evaluation["metrics"].items()},
        }
        for iterate in iterates
        for evaluation in group.evaluations
    ]


def _columns(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    return {name: np.array([row[name] for row in rows]) for name in (rows or [{}])[0]}
