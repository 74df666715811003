"""The report as one picture, with the captions under the plots."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from .. import plots
from .page import Group
from .quantities import Drawn, Trace

_COLUMNS = 3
_DASHES = {"solid": "-", "faint": "-", "dashed": "--", "dotted": ":"}
_SMOOTHED = 100  # parts of a line to either side of which its medians reach
_FEW = 30  # points, up to which each is marked
_CAPTION = 68  # characters a line


def picture(group: Group, path: Path) -> Path:
    """Draw every plot of a group into one file and return its path."""
    columns = min(_COLUMNS, len(group.plots))
    rows = -(-len(group.plots) // columns)
    width, height = 4.6 * columns, 4.3 * rows + 0.8
    figure = plots.figure(width, height)
    # Cells of one size need no layout engine, which would take longer than everything else.
    figure.set_layout_engine(None)
    figure.subplots_adjust(
        left=0.75 / width,
        right=1 - 0.15 / width,
        bottom=1 / height,
        top=1 - 0.8 / height,
        wspace=0.2,
        hspace=0.5,
    )
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for drawn, place in zip(group.plots, axes, strict=False):
        _draw(place, drawn, group.colors)
    for place in axes[len(group.plots) :]:
        place.set_axis_off()
    families = dict(zip((run.family for run in group.runs), group.colors, strict=True))
    handles = [Line2D([], [], color=c, label=f" {_plain(name)}") for name, c in families.items()]
    figure.legend(handles=handles, loc="upper left", ncols=6, frameon=False, fontsize=10)
    if group.name:
        figure.suptitle(_plain(group.name), fontsize=13)
    return plots.save(figure, path)


def _plain(text: str) -> str:
    """Text in which nothing is a formula."""
    return text.replace("$", r"\$")


def _draw(axes: Axes, drawn: Drawn, colors: list[str]) -> None:
    scaled = [line for trace in drawn.traces for line in _line(axes, trace, colors[trace.run])]
    for height, name in drawn.plot.marks:
        axes.axhline(height, color="0.6", lw=0.8, ls=":")
        where = {"xycoords": ("axes fraction", "data"), "annotation_clip": True}  # if in sight
        axes.annotate(name, (0.01, height), **where, fontsize=7, color="0.4")
    axes.grid(True, which="major", color="0.9", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if drawn.plot.scale == "log":
        plots.log_scale(axes, scaled)
    limits = axes.get_ylim()
    foot = limits[0] if axes.get_yscale() == "log" else -np.inf
    for trace in drawn.traces:
        if trace.strong and trace.spread is not None:
            edges = (_medians(trace.values + sign * trace.spread) for sign in (-1, 1))
            low, high = (np.maximum(edge, foot) for edge in edges)
            color = colors[trace.run]
            axes.fill_between(trace.steps, low, high, color=color, alpha=0.15, lw=0)
    axes.set_ylim(limits)
    axes.set_title(_plain(drawn.plot.title), fontsize=11)
    axes.set_ylabel(_plain(drawn.plot.unit), fontsize=9)
    axes.tick_params(labelsize=8)
    caption = textwrap.fill(drawn.plot.read, _CAPTION)
    axes.set_xlabel(f"step\n{_plain(caption)}", fontsize=7)


def _line(axes: Axes, trace: Trace, color: str) -> list[Line2D]:
    """Draw a line, faint as recorded and strong as running medians; return what sets the scale."""
    lines = []
    if trace.dash in ("solid", "faint"):
        lines += axes.plot(trace.steps, trace.values, color=color, lw=0.6, alpha=0.3)
    if trace.strong:
        dots = {"marker": "o", "ms": 3} if trace.values.size <= _FEW else {}
        medians, dash = _medians(trace.values), _DASHES[trace.dash]
        lines += axes.plot(trace.steps, medians, dash, color=color, lw=1.3, **dots)
    return lines


def _medians(values: np.ndarray) -> np.ndarray:
    """Running medians of what is not NaN, over fewer values at the ends."""
    reach = 0 if values.size <= _FEW else -(-values.size // _SMOOTHED)
    padded = np.pad(values, reach, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    result = np.full(values.shape, np.nan)
    some = np.isfinite(windows).any(axis=1)
    result[some] = np.nanmedian(windows[some], axis=1)
    return result
