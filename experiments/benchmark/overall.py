"""What the cells come to together; needs no jax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from . import methods, summary
from .summary import BEST_ADAM, DEFAULT_ADAM, CellSummary, Row

_NEAR = 1.1  # times the best Adam's loss: as good for most purposes


@dataclass(frozen=True)
class Against:
    """One row of one cell against the references; None where there is no such reference.

    Ratios of train losses and of test errors; below 1 is better than the reference.
    """

    to_default: summary.Interval | None
    to_adam: summary.Interval | None
    to_best: summary.Interval | None
    test_to_adam: summary.Interval | None
    equal_time: float | None
    time_to_target: float | None
    time_with_sweep: float | None


@dataclass(frozen=True)
class Overall:
    """One label over all cells that have it; medians of ratios, shares of cells."""

    label: str
    cells: int
    to_default: float
    to_adam: float
    to_best: float
    test_to_adam: float
    beats_adam: float
    near_adam: float
    equal_time: float
    time_to_target: float
    time_with_sweep: float
    reached: float
    seconds: float
    diverged: int
    runs: int


def against(cell: CellSummary, row: Row) -> Against:
    """Compare a row with Adam at its default, Adam at its best, and the best of all baselines."""
    default, adam, best = (
        cell.rows.get(DEFAULT_ADAM),
        cell.rows.get(BEST_ADAM),
        cell.best_baseline,
    )
    time = summary.time_to_target(row, adam) if adam else None
    return Against(
        to_default=summary.ratio(row, default) if default else None,
        to_adam=summary.ratio(row, adam) if adam else None,
        to_best=summary.ratio(row, best) if best else None,
        test_to_adam=summary.ratio(row, adam, "test_error") if adam else None,
        equal_time=summary.equal_time_ratio(row, adam) if adam else None,
        time_to_target=time,
        # Who has swept Adam has trained all its settings, and who sweeps this row all of these.
        time_with_sweep=None if time is None or not adam else time * row.tried / adam.tried,
    )


def overall(cells: Sequence[CellSummary]) -> list[Overall]:
    """One line per label, in the order of the methods."""
    labels = dict.fromkeys(label for cell in cells for label in cell.rows)
    return [_line(label, [cell for cell in cells if label in cell.rows]) for label in labels]


def wins(cells: Sequence[CellSummary]) -> dict[str, dict[str, float]]:
    """Share of cells in which a row of ours ends with a lower train loss than a peer."""
    rows = dict.fromkeys(
        label
        for cell in cells
        for label, row in cell.rows.items()
        if row.method in (*methods.OURS, *methods.DIRECTIONS)
    )
    found: dict[str, dict[str, float]] = {}
    for label in rows:
        for peer in methods.PEERS:
            both = [c for c in cells if label in c.rows and peer in c.rows]
            if both:
                ratios = [summary.ratio(c.rows[label], c.rows[peer]).mean for c in both]
                won = [ratio < 1 for ratio in ratios if not math.isnan(ratio)]
                found.setdefault(label, {})[peer] = float(np.mean(won)) if won else math.nan
    return found


def to_ours(cell: CellSummary, label: str) -> summary.Interval | None:
    """Compare a variation with what it varies, `meka` or `adameka`, at the same place."""
    ours = "meka" if label.startswith("meka-") else "adameka"
    place = "".join(label.partition("+")[1:])
    row, reference = cell.rows.get(label), cell.rows.get(ours + place)
    return summary.ratio(row, reference) if row is not None and reference is not None else None


def scales(cells: Sequence[CellSummary]) -> dict[str, dict[str, Any]]:
    """For each cell the best multiple of our step, and whether ours is as good within noise."""
    found = {}
    for cell in cells:
        rows = {scale: cell.rows.get(summary.scaled_label(scale)) for scale in methods.SCALES}
        ours = cell.rows.get("adameka")
        rows = {scale: row for scale, row in {**rows, 1.0: ours}.items() if row is not None}
        if ours is None or len(rows) < 2:
            continue
        ratios = {scale: summary.ratio(ours, row) for scale, row in rows.items()}
        best = max(ratios, key=lambda scale: ratios[scale].mean)
        found[cell.name] = {
            "best": best,
            "loss_of_ours_to_best": ratios[best]._asdict(),
            "ours_is_best_or_within_interval": best == 1.0 or ratios[best].low <= 1,
        }
    return found


def as_dict(cells: Sequence[CellSummary]) -> dict[str, Any]:
    """Everything, for a file."""
    return {
        "overall": [asdict(line) for line in overall(cells)],
        "wins": wins(cells),
        "scales": scales(cells),
        "cells": {
            cell.name: {
                "problem": cell.problem,
                "batch_size": cell.batch_size,
                "steps": cell.steps,
                "best_baseline": cell.best_baseline.label if cell.best_baseline else None,
                "sweeps": cell.sweeps,
                "rows": {label: _row(cell, row) for label, row in cell.rows.items()},
            }
            for cell in cells
        },
    }


def _row(cell: CellSummary, row: Row) -> dict[str, Any]:
    finals = {name: row.final(name) for name in row.runs[0]["measures"]}
    compared = against(cell, row)
    return {
        "setting": dict(row.setting),
        "settings_tried": row.tried,
        "seeds": row.seeds,
        "diverged": row.diverged,
        "step_seconds_to_adam": row.seconds,
        "final": {name: None if f is None else f._asdict() for name, f in finals.items()},
        **{
            name: value._asdict() if isinstance(value, summary.Interval) else value
            for name, value in vars(compared).items()
        },
    }


def _line(label: str, cells: Sequence[CellSummary]) -> Overall:
    rows = [cell.rows[label] for cell in cells]
    compared = [against(cell, row) for cell, row in zip(cells, rows, strict=True)]

    def values(name: str) -> list[float]:
        found = [getattr(one, name) for one in compared]
        return [v.mean if isinstance(v, summary.Interval) else v for v in found if v is not None]

    def median(name: str) -> float:
        known = [value for value in values(name) if not math.isnan(value)]
        # The upper of the two middle ones: their mean is of no use where one is infinite.
        return sorted(known)[len(known) // 2] if known else math.nan

    def share(name: str, most: float) -> float:
        known = [value for value in values(name) if not math.isnan(value)]
        return float(np.mean(np.array(known) <= most)) if known else math.nan

    return Overall(
        label=label,
        cells=len(cells),
        to_default=median("to_default"),
        to_adam=median("to_adam"),
        to_best=median("to_best"),
        test_to_adam=median("test_to_adam"),
        beats_adam=share("to_adam", 1.0),
        near_adam=share("to_adam", _NEAR),
        equal_time=median("equal_time"),
        time_to_target=median("time_to_target"),
        time_with_sweep=median("time_with_sweep"),
        reached=share("time_to_target", 1e300),
        seconds=float(np.median([row.seconds for row in rows])),
        diverged=sum(row.diverged for row in rows),
        runs=sum(len(row.runs) for row in rows),
    )
