"""Trainings as lanes, sorted by setting and seed; and the problems, cut to size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import optax

from ... import optimizers
from .. import prepared_data, problems
from ..errors import UsageError
from ..lanes import LAST, Budget, Method, Setting, compile_lanes
from ..problems import Problem
from ..problems.evaluation import first
from .registry import Report, quiet

STAND_INS = {
    "mnist": "digits",
    "cifar10": "digits-cnn",
    "cifar10-small": "digits-cnn",
    "cifar10-resnet-small": "digits-cnn",
}


def load(name: str, quick: bool, train: int | None = None, test: int | None = None) -> Problem:
    """Build a problem with at most so many examples.

    Where its data are absent, the quick version takes digits; the problem's name tells.
    """
    dataset = problems.find(name).dataset
    if quick and dataset is not None:
        try:
            prepared_data.find(dataset)
        except UsageError:
            name = STAND_INS[name]
    problem = problems.load(name)
    data, held_out = problem.data, problem.test
    if train is not None:
        data = first(data, train)
    if test is not None:
        held_out = first(held_out, test)
    return replace(problem, data=data, test=held_out)


def published(
    acquisition: Any = "probability_of_improvement", **options: Any
) -> optax.GradientTransformationExtraArgs:
    """The published rule: steps by probability of improvement, within a few Newton steps."""
    trust_region = optimizers.newton_trust_region()
    return optimizers.meka(acquisition=acquisition, trust_region=trust_region, **options)


class Trained(NamedTuple):
    """What the lanes did, sorted.

    Attributes:
      looks: steps after which there was a look, shape (looks,).
      loss: of each batch before its step, shape (settings, seeds, steps).
      measures: `train_loss`, …, each of shape (settings, seeds, looks).
      gauges: each of shape (settings, seeds, looks).
    """

    looks: np.ndarray
    loss: np.ndarray
    measures: dict[str, np.ndarray]
    gauges: dict[str, np.ndarray]

    def final(self, measure: str = "train_loss") -> np.ndarray:
        """Mean over the last quarter of the looks, shape (settings, seeds); inf if not finite."""
        values = self.measures[measure]
        last = values[..., -max(1, values.shape[-1] // 4) :].mean(axis=-1)
        return np.where(np.isfinite(last), last, np.inf)


def train(
    problem: Problem,
    method: Method,
    settings: Sequence[Setting],
    seeds: int,
    budget: Budget,
    label: str,
    report: Report = quiet,
) -> Trained:
    """Train every setting with every seed, as one compiled program."""
    lanes = compile_lanes(problem, method, budget)
    recorded = lanes(
        settings, range(seeds), lambda part: report(f"{problem.name}, {label}: {part:.0%}")
    )

    def sort(values: np.ndarray) -> np.ndarray:
        return values.reshape(len(settings), seeds, *values.shape[1:])

    return Trained(
        looks=recorded.looks,
        loss=sort(recorded.loss),
        measures={k: sort(v) for k, v in recorded.measures[LAST].items()},
        gauges={k: sort(v) for k, v in recorded.gauges.items()},
    )
