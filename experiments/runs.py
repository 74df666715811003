"""The record of one training run, which grows while it trains."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from .optimizer_specs import OptimizerSpec

Status = Literal["running", "finished", "diverged", "interrupted"]
MAX_POINTS = 5_000  # steps whose records go into a file; longer runs are thinned


@dataclass(frozen=True)
class Evaluation:
    """Measures of success after some steps.

    Attributes:
      step: number of steps done.
      seconds: training time until then, compilation and evaluation apart.
      values: what the problem's `evaluate` returned.
    """

    step: int
    seconds: float
    values: dict[str, float]


@dataclass
class Run:
    """One optimizer on one problem with one seed.

    Attributes:
      problem: name of the problem.
      spec: the optimizer.
      seed: of initial parameters and data order.
      status: how the run ended, or `running`.
      compile_seconds: time spent compiling for this run; 0 where an earlier run had done it.
      evaluations: measures of success, the first before any step.
      chunks: records of consecutive steps, arrays by name; `loss` is that of the batch before the
        step, `seconds` the training time after it.
    """

    problem: str
    spec: OptimizerSpec
    seed: int
    status: Status = "running"
    compile_seconds: float = 0.0
    evaluations: list[Evaluation] = field(default_factory=list)
    chunks: list[dict[str, np.ndarray]] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """Number of steps recorded."""
        return sum(len(chunk["loss"]) for chunk in self.chunks)

    @property
    def seconds(self) -> float:
        """Training time."""
        return float(self.chunks[-1]["seconds"][-1]) if self.chunks else 0.0

    def final(self, measure: str) -> float:
        """A measure at the end of the run; infinite loss and NaN elsewhere if it diverged."""
        if self.status == "diverged" or not self.evaluations:
            return math.inf if measure.endswith("loss") else math.nan
        return self.evaluations[-1].values.get(measure, math.nan)

    def curve(self, measure: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Steps, seconds and values of a measure of success."""
        points = [e for e in self.evaluations if measure in e.values]
        return (
            np.array([e.step for e in points]),
            np.array([e.seconds for e in points]),
            np.array([e.values[measure] for e in points]),
        )

    def record(self, name: str) -> np.ndarray:
        """Values of one record at every step; empty if there is none of that name."""
        found = [chunk[name] for chunk in self.chunks if name in chunk]
        return np.concatenate(found) if found else np.empty(0)

    def as_dict(self) -> dict[str, Any]:
        """Everything, for a file."""
        names = list(self.evaluations[0].values) if self.evaluations else []
        stride = max(1, math.ceil(self.steps / MAX_POINTS))
        recorded = list(self.chunks[0]) if self.chunks else []
        return {
            "problem": self.problem,
            "optimizer": self.spec.label,
            "kind": self.spec.kind,
            "learning_rate": self.spec.learning_rate,
            "seed": self.seed,
            "status": self.status,
            "steps": self.steps,
            "seconds": self.seconds,
            "compile_seconds": self.compile_seconds,
            "evaluations": {
                "step": [e.step for e in self.evaluations],
                "seconds": [e.seconds for e in self.evaluations],
                **{name: [e.values[name] for e in self.evaluations] for name in names},
            },
            "records": {
                "stride": stride,
                "step": np.arange(1, self.steps + 1)[::stride],
                **{name: self.record(name)[::stride] for name in recorded},
            },
        }
