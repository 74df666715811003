"""The record of one training run, which grows while it trains."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from .optimizer_specs import OptimizerSpec

Status = Literal["running", "finished", "diverged", "interrupted"]
ENDED = ("finished", "diverged")  # by themselves
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
      stride: steps from one record to the next; above 1 in a long run that was read from a file.
      steps: number of steps done.
      seconds: training time.
    """

    problem: str
    spec: OptimizerSpec
    seed: int
    status: Status = "running"
    compile_seconds: float = 0.0
    evaluations: list[Evaluation] = field(default_factory=list)
    chunks: list[dict[str, np.ndarray]] = field(default_factory=list)
    stride: int = 1
    steps: int = 0
    seconds: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether the run is over and was not interrupted."""
        return self.status in ENDED

    def add(self, chunk: dict[str, np.ndarray]) -> None:
        """Append the records of the next steps."""
        self.chunks.append(chunk)
        self.steps += len(chunk["loss"])
        self.seconds = float(chunk["seconds"][-1])

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
        records = {name: self.record(name) for name in (self.chunks[0] if self.chunks else ())}
        points = len(records.get("loss", ()))
        thinning = max(1, math.ceil(points / MAX_POINTS))
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
                "stride": self.stride * thinning,
                "step": np.arange(1, self.steps + 1, self.stride * thinning),
                **{name: values[::thinning] for name, values in records.items()},
            },
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Run:
        """The run that a file holds: what `as_dict` returned, numbers to the file's digits.

        Raises:
          KeyError, TypeError or ValueError: if the content is something else.
        """
        evaluations = {name: _floats(v) for name, v in content["evaluations"].items()}
        records = dict(content["records"])
        stride, steps = int(records.pop("stride")), records.pop("step")
        chunk = {name: _floats(values) for name, values in records.items()}
        measures = [name for name in evaluations if name not in ("step", "seconds")]
        if any(len(values) != len(steps) for values in chunk.values()):
            raise ValueError("records of different lengths")
        return cls(
            problem=content["problem"],
            spec=OptimizerSpec(content["kind"], content["learning_rate"]),
            seed=content["seed"],
            status=content["status"],
            compile_seconds=float(content["compile_seconds"]),
            evaluations=[
                Evaluation(
                    step=int(evaluations["step"][index]),
                    seconds=float(evaluations["seconds"][index]),
                    values={name: float(evaluations[name][index]) for name in measures},
                )
                for index in range(len(evaluations["step"]))
            ],
            chunks=[chunk] if len(steps) else [],
            stride=stride,
            steps=int(content["steps"]),
            seconds=float(content["seconds"]),
        )


def _floats(values: Any) -> np.ndarray:
    """Numbers of a file, where null stands for what is not finite."""
    return np.array([math.nan if value is None else value for value in values], np.float64)
