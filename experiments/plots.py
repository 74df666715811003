"""Figures of a comparison: one file each, and an overview of all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .panels import PANELS, Panel
from .summary import Row

_DPI = 150


def draw_all(problem: str, rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw every figure for which there are data, and the overview.

    Args:
      problem: name for the titles.
      rows: what to compare.
      folder: where the files go; made if need be.

    Returns:
      The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    panels = [panel for panel in PANELS if panel.has(rows)]
    files = []
    for panel in panels:
        one = figure(6.4, 4.4)
        axes = one.add_subplot()
        panel.draw(axes, rows)
        axes.set_title(f"{problem}: {axes.get_title()}", fontsize=11)
        handles, labels = axes.get_legend_handles_labels()
        one.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
        files.append(save(one, folder / f"{panel.file}.png"))
    return [*files, _overview(problem, rows, panels, folder)]


def _overview(problem: str, rows: Sequence[Row], panels: Sequence[Panel], folder: Path) -> Path:
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    whole = figure(4.3 * columns, 3.3 * lines + 0.8)
    axes = np.atleast_1d(whole.subplots(lines, columns)).ravel()
    for panel, place in zip(panels, axes, strict=False):
        panel.draw(place, rows)
    for place in axes[len(panels) :]:
        place.set_axis_off()
    handles, labels = axes[0].get_legend_handles_labels()
    whole.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=10)
    seeds = max(len(row.runs) for row in rows)
    over = f" (median and range of {seeds} seeds)" if seeds > 1 else ""
    whole.suptitle(f"{problem}{over}", fontsize=13)
    return save(whole, folder / "overview.png")


def figure(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches."""
    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def save(made: Figure, path: Path) -> Path:
    """Write the figure and return its path."""
    made.savefig(path, dpi=_DPI, facecolor="white")
    return path
