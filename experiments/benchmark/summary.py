"""What a benchmark comes to; needs no jax.

Rows are optimizers as a user would meet them: a baseline at its default and at the best of its
grid, a peer, ours at the last iterate and at the average, ours with steps of another length.
Ratios are geometric means over paired seeds, with bootstrap intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..intervals import Interval, bootstrap_mean
from . import methods

_TINY = 1e-12  # of a loss: an exact 0 must not make a ratio of nothing
_LEAST_ERROR = 1e-3  # of a part of wrong answers: less is a matter of a few examples
DEFAULT_ADAM, BEST_ADAM = "adam default", "adam best"


@dataclass(frozen=True)
class Row:
    """One optimizer on one cell.

    Attributes:
      label: name in tables.
      method: that it is a row of.
      setting: numbers it was trained with.
      runs: records of its seeds, in their order.
      seconds: per step, relative to Adam's.
      tried: settings that were trained to find this one.
    """

    label: str
    method: str
    setting: Mapping[str, float]
    runs: tuple[Mapping[str, Any], ...]
    seconds: float
    tried: int = 1

    def curve(self, measure: str) -> np.ndarray:
        """A measure at every look, shape (seeds, looks); infinite where it is not finite."""
        values = [
            [math.inf if value is None else value for value in run["measures"][measure]]
            for run in self.runs
        ]
        return np.where(np.isfinite(values), values, np.inf)

    @property
    def looks(self) -> np.ndarray:
        """Steps after which the measures were taken."""
        return np.array(self.runs[0]["looks"], float)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Which seeds there are."""
        return tuple(run["seed"] for run in self.runs)

    @property
    def diverged(self) -> int:
        """Number of seeds whose loss is not finite at the end."""
        return int((~np.isfinite(self.curve("train_loss")[:, -1])).sum())

    def final(self, measure: str) -> Interval | None:
        """Mean over the seeds that did not diverge; None if all did."""
        values = self.curve(measure)[:, -1]
        finite = values[np.isfinite(values)]
        return bootstrap_mean(finite.tolist()) if finite.size else None

    def test_error(self) -> np.ndarray:
        """Part of wrong answers at the end, or the test loss if none are given, shape (seeds,)."""
        if "test_accuracy" in self.runs[0]["measures"]:
            accuracy = self.curve("test_accuracy")[:, -1]
            return np.maximum(np.where(np.isfinite(accuracy), 1 - accuracy, 1), _LEAST_ERROR)
        return self.curve("test_loss")[:, -1]


@dataclass(frozen=True)
class CellSummary:
    """All rows of one cell.

    Attributes:
      name: of the cell.
      problem: of the cell.
      batch_size: of the cell.
      steps: of each training.
      rows: by label, in the order of the methods.
      sweeps: settings tried and training seconds of each baseline.
    """

    name: str
    problem: str
    batch_size: int
    steps: int
    rows: dict[str, Row]
    sweeps: dict[str, dict[str, float]]

    @property
    def best_baseline(self) -> Row | None:
        """The swept baseline with the lowest mean final train loss."""
        swept = [
            self.rows[f"{kind} best"] for kind in methods.BASELINES if f"{kind} best" in self.rows
        ]
        return min(swept, key=lambda row: row.curve("train_loss")[:, -1].mean(), default=None)


def cell_summaries(records: Sequence[Mapping[str, Any]]) -> list[CellSummary]:
    """One summary for each cell among the units."""
    names = dict.fromkeys((r["problem"], r["batch_size"], r["steps"]) for r in records)
    found = []
    for problem, batch_size, steps in names:
        mine = [r for r in records if (r["problem"], r["batch_size"]) == (problem, batch_size)]
        found.append(
            CellSummary(
                name=f"{problem}-{batch_size}",
                problem=problem,
                batch_size=batch_size,
                steps=steps,
                rows={row.label: row for record in mine for row in rows(record)},
                sweeps={
                    r["method"]: {
                        "settings": len(_settings(r)),
                        "seconds": r["timing"]["training_seconds"],
                    }
                    for r in mine
                    if r["method"] in methods.BASELINES
                },
            )
        )
    return found


def rows(record: Mapping[str, Any]) -> list[Row]:
    """The rows of one unit."""
    method = record["method"]
    timing = record["timing"]
    # Adam's own is 1 but for noise.
    seconds = 1.0 if method == "adam" else timing["step_seconds"] / timing["adam_step_seconds"]
    tried = _settings(record)

    places = sorted({run["place"] for run in record["runs"]}, key=lambda place: place != "last")

    def row(label: str, setting: Mapping[str, float], place: str = "last", count: int = 1) -> Row:
        runs = [r for r in record["runs"] if r["setting"] == setting and r["place"] == place]
        label = label if place == "last" else f"{label}+{place}"
        return Row(label, method, setting, tuple(runs), seconds, count)

    if method in methods.BASELINES:
        default, sweep = methods.default_setting(method), _sweep(record)
        best = {place: best_setting(sweep, place) for place in places}
        return [row(f"{method} default", default, place) for place in places] + [
            row(f"{method} best", best[place], place, len(tried)) for place in places
        ]
    if method == methods.SCALED:
        return [row(scaled_label(setting["scale"]), setting) for setting in tried]
    return [row(method, {}, place) for place in places]


def scaled_label(scale: float) -> str:
    """Row of our steps times a number."""
    return f"adameka × {scale:g}"


def _settings(record: Mapping[str, Any]) -> list[dict[str, float]]:
    return [dict(s) for s in dict.fromkeys(tuple(r["setting"].items()) for r in record["runs"])]


def _sweep(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Runs with the seeds that every setting has."""
    seeds = [
        {run["seed"] for run in record["runs"] if run["setting"] == setting}
        for setting in _settings(record)
    ]
    return [run for run in record["runs"] if run["seed"] in set.intersection(*seeds)]


def best_setting(runs: Sequence[Mapping[str, Any]], place: str = "last") -> dict[str, float]:
    """The setting with the lowest final train loss at a place, in the mean over its seeds."""
    found: dict[tuple[tuple[str, float], ...], list[float]] = {}
    for run in runs:
        if run["place"] != place:
            continue
        loss = run["measures"]["train_loss"][-1]
        known = math.inf if loss is None or not math.isfinite(loss) else float(loss)
        found.setdefault(tuple(run["setting"].items()), []).append(known)
    return dict(min(found, key=lambda setting: np.mean(found[setting])))


def ratio(row: Row, reference: Row, what: str = "train_loss") -> Interval:
    """Final train loss, or test error, relative to another row's, over the seeds of both.

    Below 1 is better than the reference. Infinite if a seed diverged, 0 if only one of the
    reference's did; not a number if a loss is negative, as that of a density may be.
    """
    if (_finals(row, what) < 0).any() or (_finals(reference, what) < 0).any():
        return Interval(math.nan, math.nan, math.nan)
    logs = _log_ratios(row, reference, what)
    logs = logs[~np.isnan(logs)]  # where both diverged
    if not len(logs) or (logs == np.inf).any():
        return Interval(math.inf, math.inf, math.inf)
    if (logs == -np.inf).any():
        return Interval(0.0, 0.0, 0.0)
    return Interval(*np.exp(bootstrap_mean(logs.tolist())).tolist())


def _finals(row: Row, what: str) -> np.ndarray:
    return row.test_error() if what == "test_error" else row.curve(what)[:, -1]


def _log_ratios(row: Row, reference: Row, what: str) -> np.ndarray:
    """Logarithms of the ratios of the shared seeds; not a number where both diverged."""

    def final(one: Row) -> dict[int, float]:
        logs = np.log(np.maximum(_finals(one, what), _TINY))
        return dict(zip(one.seeds, logs.tolist(), strict=True))

    ours, theirs = final(row), final(reference)
    with np.errstate(invalid="ignore"):
        shared = [seed for seed in ours if seed in theirs]
        return np.array([ours[s] for s in shared]) - np.array([theirs[s] for s in shared])


def steps_to(row: Row, target: float) -> float:
    """Steps until the mean train loss is at most the target; infinite if it never is.

    Between two looks the logarithm of the loss is taken for linear, or the loss if it has none.
    """
    looks, curve = row.looks, row.curve("train_loss").mean(axis=0)
    reached = np.flatnonzero(curve <= target)
    if not reached.size:
        return math.inf
    last = int(reached[0])
    if last == 0 or not math.isfinite(curve[last - 1]):
        return float(looks[last])
    ends = np.array([curve[last - 1], target, curve[last]])
    before, wanted, after = np.log(ends) if ends.min() > 0 else ends
    part = (before - wanted) / (before - after)
    return float(looks[last - 1] + part * (looks[last] - looks[last - 1]))


def time_to_target(row: Row, reference: Row) -> float:
    """Time to the reference's final mean train loss, relative to the reference's time to it."""
    target = float(reference.curve("train_loss")[:, -1].mean())
    if not math.isfinite(target):
        return math.nan
    return steps_to(row, target) * row.seconds / (steps_to(reference, target) * reference.seconds)


def equal_time_ratio(row: Row, reference: Row) -> float:
    """Train loss at the time when the reference is at its end, relative to the reference's.

    Whoever is faster than the reference stops where its steps end. Not a number if a loss is
    negative.
    """
    curve, final = row.curve("train_loss").mean(axis=0), _finals(reference, "train_loss").mean()
    if curve.min() < 0 or final < 0:
        return math.nan
    curve, final = np.log(np.maximum(curve, _TINY)), math.log(max(final, _TINY))
    step = reference.looks[-1] * reference.seconds / row.seconds
    if not np.isfinite(curve).all():
        return math.inf
    return math.exp(float(np.interp(step, row.looks, curve)) - final)
