"""The report as one picture, with the captions under the plots."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from .. import plots
from ..panels import log_scale
from .page import Group, colors
from .quantities import Drawn
from .thinning import thin
from .traces import Trace

_COLUMNS = 3
_DASHES = {"solid": "-", "faint": "-", "dashed": "--", "dotted": ":"}
_SMOOTHED = 100  # parts of a line to either side of which its medians reach
_FEW = 30  # points, up to which each is marked
_CAPTION = 68  # characters a line


def picture(group: Group, path: Path) -> Path:
    """Draw every plot of a group into one file and return its path."""
    columns = min(_COLUMNS, len(group.plots))
    rows = -(-len(group.plots) // columns)
    whole = plots.figure(4.6 * columns, 4.3 * rows + 0.8)
    axes = np.atleast_1d(whole.subplots(rows, columns)).ravel()
    shades = colors(group.runs)
    for drawn, place in zip(group.plots, axes, strict=False):
        _draw(place, drawn, shades)
    for place in axes[len(group.plots) :]:
        place.set_axis_off()
    families = dict(zip((run.family for run in group.runs), shades, strict=True))
    handles = [
        Line2D([], [], color=color, label=f" {_plain(name)}") for name, color in families.items()
    ]
    whole.legend(handles=handles, loc="outside upper left", ncols=6, frameon=False, fontsize=10)
    if group.name:
        whole.suptitle(_plain(group.name), fontsize=13)
    return plots.save(whole, path)


def _plain(text: str) -> str:
    """Text in which nothing is a formula."""
    return text.replace("$", r"\$")


def _draw(axes: Axes, drawn: Drawn, shades: Sequence[str]) -> None:
    solid = {run for run, line in drawn.lines if line.dash == "solid"}
    main = [line.dash != "faint" or run not in solid for run, line in drawn.lines]
    scaled = []
    for (run, line), strong in zip(drawn.lines, main, strict=True):
        scaled += _line(axes, line, shades[run], strong)
    for height, name in drawn.plot.marks:
        axes.axhline(height, color="0.6", lw=0.8, ls=":")
        axes.annotate(
            name,
            (0.01, height),
            xycoords=("axes fraction", "data"),
            annotation_clip=True,  # none where the mark is out of sight
            fontsize=7,
            color="0.4",
        )
    axes.grid(True, which="major", color="0.9", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if drawn.plot.scale == "log":
        log_scale(axes, scaled)
    foot = axes.get_ylim()[0] if axes.get_yscale() == "log" else -np.inf
    for (run, line), strong in zip(drawn.lines, main, strict=True):
        if strong and line.spread is not None:
            _band(axes, line, line.spread, shades[run], foot)
    axes.set_title(_plain(drawn.plot.title), fontsize=11)
    axes.set_ylabel(_plain(drawn.plot.unit), fontsize=9)
    axes.tick_params(labelsize=8)
    caption = textwrap.fill(drawn.plot.read, _CAPTION)
    axes.set_xlabel(f"step\n{_plain(caption)}", fontsize=7)


def _line(axes: Axes, line: Trace, color: str, strong: bool) -> list[Line2D]:
    """Draw a line, faint as recorded and strong as running medians; return what sets the scale."""
    kept = thin(line.values)
    x, y = line.steps[kept], _finite(line.values[kept])
    drawn = []
    if line.dash in ("solid", "faint"):
        drawn += axes.plot(x, y, color=color, lw=0.6, alpha=0.3)
    if strong:
        marker = "o" if y.size <= _FEW else ""
        drawn += axes.plot(
            x, _medians(y), _DASHES[line.dash], color=color, lw=1.3, marker=marker, ms=3
        )
    return drawn


def _band(axes: Axes, line: Trace, spread: np.ndarray, color: str, foot: float) -> None:
    """Fill what is within the spread and above the foot, keeping the limits of the axis."""
    limits = axes.get_ylim()
    kept = thin(line.values)
    low, high = (_medians(_finite(line.values[kept] + sign * spread[kept])) for sign in (-1, 1))
    low, high = np.maximum(low, foot), np.maximum(high, foot)
    axes.fill_between(line.steps[kept], low, high, color=color, alpha=0.15, lw=0)
    axes.set_ylim(limits)


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)


def _medians(values: np.ndarray) -> np.ndarray:
    """Running medians of what is not NaN, over fewer values at the ends."""
    reach = 0 if values.size <= _FEW else -(-values.size // _SMOOTHED)
    padded = np.pad(values, reach, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    result = np.full(values.shape, np.nan)
    some = np.isfinite(windows).any(axis=1)
    result[some] = np.nanmedian(windows[some], axis=1)
    return result
