"""Ratios of what optimizers came to: on one workload, and over all of them.

Rows are optimizers as a user would meet them: a baseline at its default and at the best of its
grid, what others have proposed, ours at the last iterate and at the average. Ratios are geometric
means over paired seeds, with bootstrap intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from .. import results
from ..registry import OPTIMIZERS, PROBLEMS, group
from ..results import Frame, Interval, bootstrap, ratio
from . import suite
from .suite import REFERENCE

DEFAULT_ADAM, BEST_ADAM = f"{REFERENCE} default", f"{REFERENCE} best"
_NEAR = 1.1  # times the best Adam's loss: as good for most purposes
_LEAST_ERROR = 1e-3  # of a part of wrong answers: less is a matter of a few examples
_TINY = 1e-12
_WINDOW = 3  # evaluations over which a rise is told from noise


@dataclass(frozen=True)
class Row:
    """One optimizer on one workload.

    Attributes:
      workload: name.
      label: in tables.
      optimizer: name in the registry.
      setting: label of the setting it was trained with.
      at_edge: whether that is at the edge of what was tried.
      seeds: in order.
      steps: after which it was evaluated, shape (evaluations,).
      measures: `train_loss`, …, each of shape (seeds, evaluations); infinite if not finite.
      seconds: per step, relative to Adam's.
      tried: settings that were trained to find this one.
      floor: of the problem's loss.
    """

    workload: str
    label: str
    optimizer: str
    setting: str
    at_edge: bool
    seeds: tuple[int, ...]
    steps: np.ndarray
    measures: dict[str, np.ndarray]
    seconds: float
    tried: int
    floor: float

    @property
    def loss(self) -> np.ndarray:
        """Train loss, shape (seeds, evaluations)."""
        return self.measures["train_loss"]

    @property
    def excess(self) -> np.ndarray:
        """Mean train loss over its floor, shape (evaluations,)."""
        return self.loss.mean(axis=0) - self.floor

    @property
    def diverged(self) -> int:
        """Number of seeds whose loss is not finite at the end."""
        return int((~np.isfinite(self.loss[:, -1])).sum())

    @property
    def rose(self) -> int:
        """Number of seeds whose loss over three evaluations ends above twice its lowest."""
        window = min(_WINDOW, len(self.steps))
        losses = sliding_window_view(self.loss - self.floor, window, axis=1).mean(axis=-1)
        return int((losses[:, -1] > 2 * losses.min(axis=1)).sum())

    @property
    def on_test(self) -> str:
        """What counts on test data."""
        return "test_accuracy" if "test_accuracy" in self.measures else "test_loss"

    def final(self, measure: str = "train_loss") -> Interval | None:
        """Mean over the seeds that did not diverge; None if all did."""
        values = self.measures[measure][:, -1]
        finite = values[np.isfinite(values)]
        return bootstrap(finite) if finite.size else None

    def by_seed(self, test: bool = False) -> dict[int, float]:
        """The final train loss, or on test data the part of wrong answers or else the loss.

        Losses are over their floor.
        """
        values = self.measures[self.on_test if test else "train_loss"][:, -1]
        if test and self.on_test == "test_accuracy":
            values = np.maximum(np.where(np.isfinite(values), 1 - values, 1), _LEAST_ERROR)
        else:
            values = values - self.floor
        return dict(zip(self.seeds, values.tolist(), strict=True))


Rows = dict[str, Row]  # of one workload, by label


def rows_of(jobs: Sequence[Mapping[str, Any]]) -> dict[str, Rows]:
    """The rows of each workload, in the order of the jobs."""
    found: dict[str, Rows] = {}
    for job in jobs:
        rows = found.setdefault(job["workload"], {})
        rows |= {row.label: row for row in _rows_of_job(job)}
    return found


def _rows_of_job(job: Mapping[str, Any]) -> list[Row]:
    optimizer, table = OPTIMIZERS[job["optimizer"]], results.table([job])
    tried = {optimizer.label(run["setting"]): run["setting"] for run in job["runs"]}
    timing = job["timing"]
    # Adam's own is 1 but for noise.
    seconds = timing["step_seconds"] / timing["adam_step_seconds"]
    seconds = 1.0 if optimizer.name == REFERENCE else seconds
    rows = []

    def add(name: str, setting: str, iterate: str, count: int = 1) -> None:
        mine = table[(table["label"] == setting) & (table["iterate"] == iterate)]
        columns = [c for c in mine if c.endswith(("_loss", "_accuracy"))]
        wide = {
            c: mine.pivot(index="seed", columns="step", values=c).astype(float) for c in columns
        }
        loss = wide["train_loss"]
        rows.append(
            Row(
                workload=job["workload"],
                label=name if iterate == "last" else f"{name}+{iterate}",
                optimizer=optimizer.name,
                setting=setting,
                at_edge=count > 1 and suite.is_at_edge([*tried.values()], tried[setting]),
                seeds=tuple(int(seed) for seed in loss.index),
                steps=loss.columns.to_numpy(float),
                measures={c: w.where(np.isfinite(w), np.inf).to_numpy() for c, w in wide.items()},
                seconds=seconds,
                tried=count,
                floor=PROBLEMS[job["problem"]].floor if job["problem"] in PROBLEMS else 0.0,
            )
        )

    iterates = list(table["iterate"].unique())
    if optimizer.group == "baseline":
        for iterate in iterates:
            add(f"{optimizer.name} default", optimizer.label(optimizer.default), iterate)
        for iterate in iterates:
            best = results.best_setting(table, iterate)
            add(f"{optimizer.name} best", best, iterate, len(tried))
        return rows
    for label in tried:
        for iterate in iterates:
            add(label, label, iterate)
    return rows


def best_of(rows: Rows, *baselines: str) -> Row | None:
    """The best of the sweeps of some baselines: lowest mean final train loss, last or averaged."""
    labels = [f"{name} best{iterate}" for name in baselines for iterate in ("", "+average")]
    best = [rows[label] for label in labels if label in rows]
    return min(best, key=lambda row: row.loss[:, -1].mean(), default=None)


def best_baseline(rows: Rows) -> Row | None:
    """The best of the sweeps of all baselines."""
    return best_of(rows, *(row.name for row in group("baseline")))


def against(row: Row, rows: Rows) -> dict[str, Any]:
    """Ratios to the references of the workload, None where there is no such reference.

    There is none either, and `at_edge` says so, where the best of a sweep is at its edge.
    """
    default, adam, best = rows.get(DEFAULT_ADAM), best_of(rows, REFERENCE), best_baseline(rows)
    at_edge = row.at_edge or bool(adam and adam.at_edge)
    adam = None if at_edge else adam
    best = None if row.at_edge or (best and best.at_edge) else best

    def to(other: Row | None, test: bool = False) -> Interval | None:
        return None if other is None else ratio(row.by_seed(test), other.by_seed(test))

    steps = time = with_sweep = None
    if adam:
        target = float(adam.excess[-1])
        steps = steps_to(row, target) if math.isfinite(target) else math.nan
        time = steps * row.seconds / (steps_to(adam, target) * adam.seconds)
        # Who has swept Adam has trained all its settings, and who sweeps this row all of these.
        with_sweep = time * row.tried / adam.tried
    return {
        "at_edge": at_edge,
        "to_default": to(default),
        "to_adam": to(adam),
        "to_best": to(best),
        "test_to_adam": to(adam, test=True),
        "equal_time": equal_time_ratio(row, adam) if adam else None,
        "steps_to_target": steps,
        "time_to_target": time,
        "time_with_sweep": with_sweep,
    }


def steps_to(row: Row, target: float) -> float:
    """Steps until the mean train loss, over its floor, is at most the target; infinite if never.

    Between two evaluations the logarithm of the loss is taken for linear, or the loss if it has
    none.
    """
    losses = row.excess
    reached = np.flatnonzero(losses <= target)
    if not reached.size:
        return math.inf
    last = int(reached[0])
    if last == 0 or not math.isfinite(losses[last - 1]):
        return float(row.steps[last])
    ends = np.array([losses[last - 1], target, losses[last]])
    before, wanted, after = np.log(ends) if ends.min() > 0 else ends
    part = (before - wanted) / (before - after)
    return float(row.steps[last - 1] + part * (row.steps[last] - row.steps[last - 1]))


def equal_time_ratio(row: Row, reference: Row) -> float:
    """Train loss at the time when the reference is at its end, relative to the reference's.

    Both over their floor. Whoever is faster than the reference stops where its steps end. Not a
    number if a loss is below the floor.
    """
    losses, final = row.excess, reference.excess[-1]
    if losses.min() < 0 or final < 0:
        return math.nan
    losses, final = np.log(np.maximum(losses, _TINY)), math.log(max(final, _TINY))
    step = reference.steps[-1] * reference.seconds / row.seconds
    if not np.isfinite(losses).all():
        return math.inf
    return math.exp(float(np.interp(step, row.steps, losses)) - final)


def compared(workloads: Mapping[str, Rows]) -> Frame:
    """One line per workload and row, with what `against` says; intervals as they are."""
    return pd.DataFrame(
        [
            {
                "workload": name,
                "label": row.label,
                "optimizer": row.optimizer,
                "seconds": row.seconds,
                "rose": row.rose,
                "diverged": row.diverged,
                "runs": len(row.seeds),
                **against(row, rows),
            }
            for name, rows in workloads.items()
            for row in rows.values()
        ]
    )


def overall(table: Frame) -> Frame:
    """One line per label over its workloads; needs what `compared` returns."""
    scores = {}
    for column, name in (("steps_to_target", "steps"), ("time_to_target", "seconds")):
        times = table.pivot(index="workload", columns="label", values=column).astype(float)
        scores[name] = results.profile_scores(times)
    lines = {}
    for label, mine in table.groupby("label", sort=False):
        to_adam = means(mine["to_adam"])
        known = to_adam.dropna()
        mean = None
        if len(known):
            mean = _geometric(known.to_numpy())
        worst = mine["workload"][known.idxmax()] if len(known) else None
        lines[label] = {
            "workloads": len(mine),
            "compared": len(known),
            "at_edge": int(mine["at_edge"].sum()),
            "to_default": means(mine["to_default"]).median(),
            "to_adam": means(mine["to_adam"]).median(),
            "mean": mean,
            "worst": known.max() if len(known) else math.nan,
            "worst_workload": worst,
            "to_best": means(mine["to_best"]).median(),
            "near_adam": (known <= _NEAR).mean() if len(known) else math.nan,
            "test_to_adam": means(mine["test_to_adam"]).median(),
            "equal_time": means(mine["equal_time"]).median(),
            "time_to_target": means(mine["time_to_target"]).median(),
            "time_with_sweep": means(mine["time_with_sweep"]).median(),
            "score_steps": scores["steps"].get(label, math.nan),
            "score_seconds": scores["seconds"].get(label, math.nan),
            "seconds": mine["seconds"].median(),
            "rose": int(mine["rose"].sum()),
            "diverged": int(mine["diverged"].sum()),
            "runs": int(mine["runs"].sum()),
        }
    return pd.DataFrame.from_dict(lines, orient="index")


def means(column: Frame) -> Frame:
    """Numbers of a column of intervals, numbers and None."""
    return column.map(lambda v: v.mean if isinstance(v, Interval) else v).astype(float)


def _geometric(ratios: np.ndarray) -> Interval:
    """Geometric mean; without an interval where a ratio is 0 or infinite, as of what diverged."""
    if np.isfinite(ratios).all() and (ratios > 0).all():
        return bootstrap(ratios, geometric=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return Interval(*[float(np.exp(np.log(ratios).mean()))] * 3)


def wins(workloads: Mapping[str, Rows]) -> Frame:
    """Share of workloads in which ours end with a lower train loss than each of the others."""
    ours = [row.name for row in group("ours", "direction")]
    found: dict[str, dict[str, float]] = {}
    for label in dict.fromkeys(label for rows in workloads.values() for label in rows):
        if label.partition("+")[0] not in ours:
            continue
        for other in group("learning_rate_free"):
            both = [rows for rows in workloads.values() if label in rows and other.name in rows]
            ratios = [ratio(r[label].by_seed(), r[other.name].by_seed()).mean for r in both]
            known = [one < 1 for one in ratios if not math.isnan(one)]
            if both:
                found.setdefault(label, {})[other.name] = (
                    float(np.mean(known)) if known else math.nan
                )
    return pd.DataFrame.from_dict(found, orient="index")


def to_ours(label: str, rows: Rows) -> Interval | None:
    """Compare a variation with what it varies, `meka` or `adameka`, at the same iterate."""
    ours = "meka" if label.startswith("meka-") else "adameka"
    row, reference = rows.get(label), rows.get(ours + "".join(label.partition("+")[1:]))
    return ratio(row.by_seed(), reference.by_seed()) if row and reference else None


def scales(workloads: Mapping[str, Rows]) -> dict[str, dict[str, Any]]:
    """For each workload the best multiple of our step, and whether ours is as good within noise."""
    found = {}
    for name, rows in workloads.items():
        scaled = {
            setting["scale"]: rows.get(row.label(setting))
            for row in group("scaled")
            for setting in row.settings
        }
        known = {s: row for s, row in {**scaled, 1.0: rows.get("adameka")}.items() if row}
        if 1.0 not in known or len(known) < 2:
            continue
        ratios = {s: ratio(known[1.0].by_seed(), row.by_seed()) for s, row in known.items()}
        best = max(ratios, key=lambda scale: ratios[scale].mean)
        found[name] = {
            "best": best,
            "loss_of_ours_to_best": ratios[best]._asdict(),
            "ours_is_best_or_within_interval": best == 1.0 or ratios[best].low <= 1,
        }
    return found
