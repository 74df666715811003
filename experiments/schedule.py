"""How long a run lasts and when it is evaluated."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from .runs import Evaluation


@dataclass(frozen=True)
class Budget:
    """Either a number of steps, evaluated at fixed ones, or a time.

    Attributes:
      looks: steps after which to evaluate, ascending, the last being the end; empty with a
        budget of time.
      seconds: training time, or None with a budget of steps.
      evaluations: how often to evaluate within a budget of time.
    """

    looks: tuple[int, ...] = ()
    seconds: float | None = None
    evaluations: int = 20

    def steps_to_next_look(self, step: int) -> int:
        """Steps until the next evaluation; without bound with a budget of time."""
        if self.seconds is not None:
            return 1 << 30
        return self.looks[bisect_right(self.looks, step)] - step

    def is_spent(self, step: int, seconds: float) -> bool:
        """Whether the run is over."""
        return step >= self.looks[-1] if self.seconds is None else seconds >= self.seconds

    def is_due(self, step: int, seconds: float, last: Evaluation) -> bool:
        """Whether to evaluate now, given the last evaluation."""
        if self.seconds is None:
            return step in self.looks
        return seconds - last.seconds >= self.seconds / self.evaluations

    def fraction(self, step: int, seconds: float) -> float:
        """Part of the budget that is used up, at most 1."""
        done = step / self.looks[-1] if self.seconds is None else seconds / self.seconds
        return min(done, 1.0)


def of_epochs(epochs: int, steps_per_epoch: int, evaluations: int) -> Budget:
    """Budget of whole epochs with at least so many evaluations, some of them at epochs' ends."""
    parts = min(-(-evaluations // epochs), steps_per_epoch)
    looks = tuple(
        epoch * steps_per_epoch + round(part * steps_per_epoch / parts)
        for epoch in range(epochs)
        for part in range(1, parts + 1)
    )
    return Budget(looks=looks)


def of_seconds(seconds: float, evaluations: int) -> Budget:
    """Budget of training time."""
    return Budget(seconds=seconds, evaluations=evaluations)
