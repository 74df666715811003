"""Figures of a benchmark: how good each optimizer is on each cell, and how it gets there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from ..palette import BY_OPTIMIZER
from ..plots import figure as new_figure
from ..plots import save
from . import methods, overall
from .summary import CellSummary, Row

_OTHERS = ("#000000", "#7F3C8D", "#A5AA99", "#80BA5A", "#E68310")  # peers
_MOST = 30.0  # ratio beyond which a dot is at the edge
_LEAST = 0.1


def draw_all(cells: Sequence[CellSummary], folder: Path) -> list[Path]:
    """Draw the ratios over all cells, and the curves of each cell."""
    files = [curves(cell, folder) for cell in cells]
    if any(cell.best_baseline for cell in cells):
        files.insert(0, ratios(cells, folder))
    return files


def ratios(cells: Sequence[CellSummary], folder: Path) -> Path:
    """One line per optimizer, one dot per cell: final train loss over the best baseline's."""
    labels = list(dict.fromkeys(label for cell in cells for label in cell.rows))
    figure = new_figure(7.2, 1.4 + 0.26 * len(labels))
    axes = figure.add_subplot()
    for place, label in enumerate(labels):
        present = [cell for cell in cells if label in cell.rows]
        pairs = [(cell, overall.against(cell, cell.rows[label]).to_best) for cell in present]
        pairs = [(cell, ratio) for cell, ratio in pairs if ratio and not math.isnan(ratio.mean)]
        if not pairs:
            continue
        dots = np.clip([ratio.mean for _, ratio in pairs], _LEAST, _MOST)
        small = np.array([cell.batch_size < 128 for cell, _ in pairs])
        color = _color(present[0].rows[label])
        y = np.full(len(dots), float(place))
        axes.plot(dots[small], y[small], "o", color=color, ms=5, alpha=0.7, mew=0)
        axes.plot(dots[~small], y[~small], "s", color=color, ms=5, alpha=0.7, mew=0)
        axes.plot(np.median(dots), place, "|", color="black", ms=13, mew=2)
    axes.axvline(1, color="0.4", lw=0.8)
    axes.set_xscale("log")
    axes.set_xlim(_LEAST / 1.15, _MOST * 1.15)
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(True, axis="both", color="0.92", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("final train loss ÷ best swept baseline's (○ small, □ large batch, | median)")
    axes.set_title(
        "each dot a cell; diverged or worse by more than 30 at the right edge", fontsize=11
    )
    return save(figure, folder / "ratios.png")


def curves(cell: CellSummary, folder: Path) -> Path:
    """Train loss against steps, and against time in steps of Adam."""
    figure = new_figure(10.0, 4.6)
    left, right = figure.subplots(1, 2, sharey=True)
    for row in cell.rows.values():
        if row.method == methods.SCALED or row.method in methods.ABLATIONS:
            continue
        _line(left, row, 1.0)
        _line(right, row, row.seconds)
    losses = np.concatenate([row.curve("train_loss") for row in cell.rows.values()])
    positive = losses.min() > 0
    for axes, label in ((left, "steps"), (right, "time in steps of Adam")):
        axes.set_yscale("log" if positive else "linear")
        axes.set_xlabel(label)
        axes.grid(True, color="0.92", lw=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_ylabel("train loss")
    right.set_xlim(0, 3 * cell.steps)
    starts = losses[np.isfinite(losses[:, 0]), 0]
    if starts.size:  # what diverges must not hide the rest
        left.set_ylim(top=(2 if positive else 1) * float(np.percentile(starts, 75)))
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    figure.suptitle(f"{cell.problem}, batch size {cell.batch_size}: median of the seeds")
    return save(figure, folder / "curves" / f"{cell.name}.png")


def _line(axes: Axes, row: Row, stretch: float) -> None:
    middle = np.median(row.curve("train_loss"), axis=0)
    known = np.isfinite(middle)
    width = 2.2 if row.method in methods.OURS else 1.2
    dash = {"best": "-", "default": ":"}.get(row.label.split()[-1], "-")
    dash = "--" if row.label.endswith("average") or row.method in methods.DIRECTIONS else dash
    axes.plot(
        row.looks[known] * stretch,
        middle[known],
        dash,
        color=_color(row),
        lw=width,
        label=row.label,
    )


def _color(row: Row) -> str:
    if row.method in methods.PEERS:
        return _OTHERS[methods.PEERS.index(row.method) % len(_OTHERS)]
    if row.method in methods.DIRECTIONS:
        return ("#B15928", "#6A3D9A", "#FB9A99", "#1B9E77")[methods.DIRECTIONS.index(row.method)]
    kind = row.method.partition("-")[0]
    return BY_OPTIMIZER.get(kind, "#999999")  # variations of no name of ours
