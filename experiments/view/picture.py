"""The report as one picture, with the captions under the plots."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from .. import plots
from .page import Group
from .quantities import Drawn

_DASHES = {"solid": "-", "faint": "-", "dashed": "--", "dotted": ":"}
_FEW = 30  # points, up to which each is marked


def picture(group: Group, path: Path) -> Path:
    """Draw every plot of a group into one file and return its path."""
    columns = min(3, len(group.plots))
    rows = -(-len(group.plots) // columns)
    width, height = 4.6 * columns, 4.3 * rows + 0.8
    figure, axes = plots.panels("", rows, columns, width, height)
    # Cells of one size need no layout engine, which would take longer than everything else.
    figure.set_layout_engine(None)
    figure.subplots_adjust(
        0.75 / width, 1 / height, 1 - 0.15 / width, 1 - 0.8 / height, wspace=0.2, hspace=0.5
    )
    figure.suptitle(_plain(group.name), fontsize=11, y=1 - 0.15 / height)  # above all plots
    for drawn, place in zip(group.plots, axes, strict=False):
        _draw(place, drawn, group.colors)
    for place in axes[len(group.plots) :]:
        place.set_axis_off()
    families = dict(zip((run.family for run in group.runs), group.colors, strict=True))
    handles = [Line2D([], [], color=c, label=f" {_plain(name)}") for name, c in families.items()]
    figure.legend(handles=handles, loc="upper left", ncols=6, frameon=False, fontsize=10)
    return plots.save(figure, path)


def _plain(text: str) -> str:
    """Text in which nothing is a formula."""
    return text.replace("$", r"\$")


def _draw(axes: Axes, drawn: Drawn, colors: list[str]) -> None:
    lines, bands = [], []
    for trace in drawn.traces:
        values, color = trace.values, colors[trace.run]
        if trace.dash in ("solid", "faint"):  # as recorded
            lines += axes.plot(values.index, values, color=color, lw=0.6, alpha=0.3)
        if trace.strong:
            dots = {"marker": "o", "ms": 3} if values.size <= _FEW else {}
            dash, medians = _DASHES[trace.dash], _medians(values)
            lines += axes.plot(values.index, medians, dash, color=color, lw=1.3, **dots)
            if trace.spread is not None:
                bands.append(
                    (_medians(values - trace.spread), _medians(values + trace.spread), color)
                )
    for height, name in drawn.plot.marks:
        axes.axhline(height, color="0.6", lw=0.8, ls=":")
        where = {"xycoords": ("axes fraction", "data"), "annotation_clip": True}  # if in sight
        axes.annotate(name, (0.01, height), **where, fontsize=7, color="0.4")
    if drawn.plot.scale == "log":
        plots.log_scale(axes, lines)
    limits = axes.get_ylim()
    foot = limits[0] if axes.get_yscale() == "log" else -np.inf
    for low, high, color in bands:
        edges = low.clip(lower=foot), high.clip(lower=foot)
        axes.fill_between(low.index, *edges, color=color, alpha=0.15, lw=0)
    axes.set_ylim(limits)
    axes.set_title(_plain(drawn.plot.title), fontsize=11)
    axes.set_ylabel(_plain(drawn.plot.unit), fontsize=9)
    axes.tick_params(labelsize=8)
    axes.set_xlabel(f"step\n{_plain(textwrap.fill(drawn.plot.read, 68))}", fontsize=7)


def _medians(values: pd.Series) -> pd.Series:
    """Running medians over a fiftieth of a line, of what is not NaN."""
    reach = 0 if values.size <= _FEW else -(-values.size // 100)
    medians = values.rolling(2 * reach + 1, center=True, min_periods=1).median()
    return cast(pd.Series, medians)
