"""What the pictures have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import plots

# Okabe and Ito: colors that color-blind readers can tell apart.
BLUE, GREEN, RED, ORANGE, SKY, PINK, BLACK = (
    "#0072B2", "#009E73", "#D55E00", "#E69F00", "#56B4E9", "#CC79A7", "#222222",
)  # fmt: skip
CYCLE = (BLUE, RED, GREEN, ORANGE, PINK, SKY, BLACK)
_DPI = 100


def figure(title: str, quick: bool, width: float, height: float) -> Figure:
    """An empty figure that says whether it is the quick or the full version."""
    made = plots.figure(width, height)
    made.suptitle(f"{title} ({'quick' if quick else 'full'} version)", fontsize=11)
    return made


def save(made: Figure, out: Path, name: str) -> None:
    """Write `NAME.png`."""
    made.savefig(out / f"{name}.png", dpi=_DPI, facecolor="white")


def plain(axes: Axes) -> Axes:
    """Light grid, no box."""
    axes.grid(True, color="0.92", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def band(
    axes: Axes, x: np.ndarray, values: np.ndarray, color: str, label: str, dash: str = "-"
) -> None:
    """Median and range over the seeds, along the first axis; what is not finite is left out."""
    shown = np.where(np.isfinite(values), values, np.nan)
    with np.errstate(all="ignore"):
        middle = np.median(shown, axis=0)
        low, high = np.min(shown, axis=0), np.max(shown, axis=0)
    axes.fill_between(x, low, high, color=color, alpha=0.15, lw=0)
    axes.plot(x, middle, color=color, ls=dash, lw=1.6, label=label)


def legend_below(made: Figure, axes: Axes, columns: int) -> None:
    """One legend for all panels."""
    handles, labels = axes.get_legend_handles_labels()
    made.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )


def grid(made: Figure, columns: int, panels: int) -> Sequence[Axes]:
    """So many panels, row by row."""
    rows = -(-panels // columns)
    axes = np.atleast_1d(made.subplots(rows, columns)).ravel()
    for place in axes[panels:]:
        place.set_axis_off()
    return [plain(place) for place in axes[:panels]]
