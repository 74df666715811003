"""Everything that is drawn with matplotlib: the figures of a comparison and of a benchmark."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from .results import Frame

# Colors that color-blind readers can tell apart (Okabe and Ito), the same in every figure.
BY_OPTIMIZER = {
    "meka": "#0072B2",
    "adameka": "#009E73",
    "adam": "#D55E00",
    "adamw": "#CC79A7",
    "sgd": "#E69F00",
    "momentum": "#56B4E9",
}
SHADES = (
    *BY_OPTIMIZER.values(), "#666666", "#9A8B00",
    "#00395A", "#004F3A", "#6B2F00", "#663D54", "#735000", "#2B5A75", "#222222", "#4D4600",
)  # fmt: skip
COLORS = (*BY_OPTIMIZER.values(), "#222222")  # of whatever else there is, in this order
_DASHES = ("-", "--", ":", "-.")  # for several settings of one optimizer
_DPI = 150
_POINTS = 100  # of a curve with one value per step


def colors(names: Iterable[str]) -> dict[str, str]:
    """Choose a color for each name: that of its optimizer, if it is the first of its kind.

    Example:
      >>> colors(["run 7", "adam:0.001", "adam:0.01"])
      {'adam:0.001': '#D55E00', 'run 7': '#0072B2', 'adam:0.01': '#009E73'}
    """
    names = list(dict.fromkeys(names))
    chosen: dict[str, str] = {}
    for name in names:
        color = BY_OPTIMIZER.get(name.partition(":")[0])
        if color and color not in chosen.values():
            chosen[name] = color
    rest = [name for name in names if name not in chosen]
    free = [color for color in SHADES if color not in chosen.values()] or list(SHADES)
    return chosen | {name: free[place % len(free)] for place, name in enumerate(rest)}


def figure(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches."""
    fig = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(fig)
    return fig


def save(fig: Figure, path: Path) -> Path:
    """Write the figure and return its path."""
    fig.savefig(path, dpi=_DPI, facecolor="white")
    return path


def tidy(axes: Axes, grid: str = "both") -> None:
    """A light grid behind, and no frame above and to the right."""
    axes.grid(True, which="major", axis=grid, color="0.9", lw=0.8)  # pyright: ignore
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def legend_below(fig: Figure, axes: Axes, columns: int) -> None:
    """One legend for all axes, of what is in these."""
    handles, labels = axes.get_legend_handles_labels()
    fig.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )


def panels(
    title: str, rows: int, columns: int, width: float, height: float, **shared: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with tidy axes, row by row, each of which takes the colors in the same order.

    Args:
      title: of the figure.
      rows: of axes.
      columns: of axes.
      width: in inches.
      height: in inches.
      **shared: `sharex` and `sharey` of `Figure.subplots`.
    """
    fig = figure(width, height)
    fig.suptitle(title, fontsize=11)
    places = list(fig.subplots(rows, columns, squeeze=False, **shared).ravel())
    for axes in places:
        tidy(axes)
        axes.set_prop_cycle(color=COLORS)
    return fig, places


def band(
    axes: Axes, x: np.ndarray, values: np.ndarray, label: str, linestyle: str = "-", **style: Any
) -> Any:
    """Draw median and range over the first axis, without what is not finite; returns the color."""
    finite = np.where(np.isfinite(values), values, np.nan)
    with np.errstate(all="ignore"):
        median, low, high = np.median(finite, 0), np.min(finite, 0), np.max(finite, 0)
    (line,) = axes.plot(x, median, linestyle, lw=1.6, label=label, **style)
    axes.fill_between(x, low, high, color=line.get_color(), alpha=0.15, lw=0)
    return line.get_color()


def band_panels(
    title: str, shown: Mapping[str, Mapping[str, tuple[Any, Any]]], columns: int,
    width: float, height: float, marker: str | None = None, **shared: Any,
) -> tuple[Figure, list[Axes]]:  # fmt: skip
    """A panel for each of some titles, with a `band` for each label, and one legend."""
    fig, places = panels(title, -(-len(shown) // columns), columns, width, height, **shared)
    for axes, (heading, lines) in zip(places, shown.items(), strict=True):
        for label, (x, values) in lines.items():
            band(axes, x, values, label, marker=marker)
        axes.set(title=heading, xlabel="step", yscale="log")
    legend_below(fig, places[0], len(places[0].get_lines()))
    return fig, places


def log_scale(axes: Axes, lines: Sequence[Line2D], margin: float = 1.5) -> None:
    """Logarithmic where nearly all values are positive, with the others marked at the foot.

    Symmetric about zero where many are not positive.
    """
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in lines])
    positive = values[values > 0]
    if len(positive) < 0.8 * len(values):
        scale = np.abs(values[values != 0])
        if scale.size:
            axes.set_yscale("symlog", linthresh=float(np.percentile(scale, 20)))
        return
    low, high = positive.min() / margin, positive.max() * margin
    axes.set_yscale("log", nonpositive="mask")
    axes.set_ylim(low, high)
    if high / low < 100:  # few decades: label more than the powers of ten
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    for line in lines:
        x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        marks = x[y <= 0]
        if marks.size:
            foot = axes.get_xaxis_transform()
            axes.plot(marks, np.full(marks.size, 0.02), "v", color=line.get_color(), transform=foot)


# A comparison


class Shown(NamedTuple):
    """One optimizer with one setting, as it is drawn.

    Attributes:
      label: in the legend.
      optimizer: its name, which chooses the color.
      evaluations: of all seeds, as `results.table` has them.
      steps: likewise.
    """

    label: str
    optimizer: str
    evaluations: Frame
    steps: Frame


class Curve(NamedTuple):
    """Median over the seeds, lowest and highest, at each point of the axis."""

    x: np.ndarray
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray


class _Panel(NamedTuple):
    """One figure of a comparison: which column, against what, and how it is finished."""

    file: str
    title: str
    x: str
    y: str
    of: str
    column: str
    finish: Callable[[Axes, list[Line2D]], None] = lambda axes, lines: log_scale(axes, lines)
    axis: str = "step"
    bands: bool = True


def draw_comparison(problem: str, shown: Sequence[Shown], folder: Path) -> list[Path]:
    """Draw every figure for which there are data, and the overview of all.

    Args:
      problem: name for the titles.
      shown: what to compare.
      folder: where the files go; made if need be.

    Returns:
      The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    panels = [panel for panel in _PANELS if any(_curve(one, panel) for one in shown)]
    if any(panel.column == "test_accuracy" for panel in panels):
        panels = [panel for panel in panels if panel.column != "test_loss"]
    files = []
    for panel in panels:
        fig = figure(6.4, 4.4)
        axes = fig.add_subplot()
        _draw(axes, panel, shown)
        axes.set_title(f"{problem}: {axes.get_title()}", fontsize=11)
        legend_below(fig, axes, 3)
        files.append(save(fig, folder / f"{panel.file}.png"))
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    fig = figure(4.3 * columns, 3.3 * rows + 0.8)
    grid = np.atleast_1d(fig.subplots(rows, columns)).ravel()
    for panel, axes in zip(panels, grid, strict=False):
        _draw(axes, panel, shown)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    legend_below(fig, grid[0], 6)
    seeds = max(one.evaluations["seed"].nunique() for one in shown)
    over = f" (median and range of {seeds} seeds)" if seeds > 1 else ""
    fig.suptitle(f"{problem}{over}", fontsize=13)
    return [*files, save(fig, folder / "overview.png")]


def curve(frame: Frame, column: str, axis: str = "step", thin: bool = False) -> Curve | None:
    """A column over the seeds, brought onto one axis; None if there are no values.

    Args:
      frame: rows of all seeds.
      column: to draw.
      axis: column to draw against.
      thin: take medians of groups of consecutive rows, that a noisy curve can be seen.
    """
    if column not in frame:
        return None
    curves = []
    for _, rows in frame.groupby("seed", sort=True):
        x, y = rows[axis].to_numpy(float), rows[column].to_numpy(float)
        if thin:
            x, y = _thin(x, y)
        known = np.isfinite(y)
        if known.any():
            curves.append((x[known], y[known]))
    if not curves:
        return None
    first = curves[0][0]
    if all(np.array_equal(first, x) for x, _ in curves):
        common = first
    else:  # as many points as the longest, and ends with the shortest
        end = min(x[-1] for x, _ in curves)
        common = np.linspace(max(x[0] for x, _ in curves), end, max(len(x) for x, _ in curves))
    values = np.stack([np.interp(common, x, y) for x, y in curves])
    return Curve(common, np.median(values, axis=0), values.min(axis=0), values.max(axis=0))


def _thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    size = max(1, math.ceil(len(x) / _POINTS))
    whole = len(x) // size * size
    middle = [np.median(v[:whole].reshape(-1, size), axis=1) for v in (x, y)]
    return middle[0], middle[1]


def _curve(one: Shown, panel: _Panel, column: str | None = None) -> Curve | None:
    frame = one.evaluations if panel.of == "evaluations" else one.steps
    return curve(frame, column or panel.column, panel.axis, thin=panel.of == "steps")


def _draw(axes: Axes, panel: _Panel, shown: Sequence[Shown]) -> None:
    """A line for each optimizer and, over several seeds, a band."""
    lines, seen = [], dict.fromkeys((one.optimizer for one in shown), 0)
    of_optimizer = colors(seen)
    for one in shown:
        dash = _DASHES[seen[one.optimizer] % len(_DASHES)]
        seen[one.optimizer] += 1
        found = _curve(one, panel)
        if found is None:
            continue
        color = of_optimizer[one.optimizer]
        factor = 100 if panel.column == "test_accuracy" else 1
        lines += axes.plot(
            found.x, factor * found.middle, color=color, ls=dash, lw=1.6, label=one.label
        )
        low, high = found.low, found.high
        if panel.column == "step_size":
            spread = _curve(one, panel, "step_size_std")
            if spread is None or len(spread.x) != len(found.x):
                continue
            part = 1 + spread.middle / np.maximum(found.middle, np.finfo(np.float32).tiny)
            low, high = found.middle / part, found.middle * part
        elif one.evaluations["seed"].nunique() == 1:
            continue
        axes.fill_between(found.x, factor * low, factor * high, color=color, alpha=0.16, lw=0)
    tidy(axes)
    axes.set_title(panel.title)
    axes.set_xlabel(panel.x)
    axes.set_ylabel(panel.y)
    panel.finish(axes, lines)


def _late_range(axes: Axes, lines: list[Line2D]) -> None:
    """The first evaluations are those of a guesser: look at where the curves end."""
    values = [np.asarray(line.get_ydata(), float) for line in lines]
    late = np.concatenate([y[len(y) // 4 :] for y in values])
    margin = max(0.08 * (late.max() - late.min()), 0.5)
    axes.set_ylim(max(late.min() - margin, 0), min(late.max() + margin, 100.5))


def _signed(axes: Axes, lines: list[Line2D]) -> None:
    log_scale(axes, lines)
    if any((np.asarray(line.get_ydata()) <= 0).any() for line in lines):
        axes.set_title(f"{axes.get_title()} (▾ where negative)")


_PANELS = (
    _Panel(
        "train_loss_steps", "train loss against steps", "steps", "train loss",
        "evaluations", "train_loss",
    ),
    _Panel(
        "train_loss_seconds", "train loss against seconds", "training time (s)", "train loss",
        "evaluations", "train_loss", axis="seconds",
    ),
    _Panel(
        "test_accuracy", "test accuracy", "steps", "test accuracy (%)",
        "evaluations", "test_accuracy", _late_range,
    ),
    _Panel(
        "test_loss", "test loss", "steps", "test loss",
        "evaluations", "test_loss", lambda axes, lines: None,
    ),
    _Panel(
        "step_size", "step size and its uncertainty (± 1 std)", "steps", "step size",
        "steps", "step_size", lambda axes, lines: log_scale(axes, lines, margin=3.0),
    ),
    _Panel(
        "curvature", "curvature along the step", "steps", "curvature (loss / length²)",
        "steps", "curvature", _signed,
    ),
    _Panel("gain", "Kalman gain", "steps", "weight of the newest gradient", "steps", "gain"),
)  # fmt: skip


# A benchmark

_MOST, _LEAST = 30.0, 1 / 30  # ratios beyond are at an edge


def _optimizer(label: str) -> str:
    """Of the label of a row, such as `adam best+average`: what chooses its color."""
    return label.partition(" ")[0].partition("+")[0]


def draw_ratios(ratios: Frame, large: Mapping[str, bool], path: Path) -> Path:
    """One line per optimizer, one dot per workload: final train loss over the best baseline's.

    Args:
      ratios: a row for each optimizer, a column for each workload.
      large: whether a workload has large batches.
      path: of the file.
    """
    fig = figure(7.2, 1.4 + 0.26 * len(ratios))
    axes = fig.add_subplot()
    of_optimizer = colors(map(_optimizer, ratios.index))
    for place, (label, row) in enumerate(ratios.iterrows()):
        known = row.dropna().astype(float)
        if known.empty:
            continue
        for marker, size in (("o", False), ("s", True)):
            dots = known[[name for name in known.index if large[name] == size]]
            color = of_optimizer[_optimizer(str(label))]
            x = dots.clip(_LEAST, _MOST).to_numpy()
            axes.plot(x, np.full(len(x), place), marker, color=color, ms=5, alpha=0.7, mew=0)
        axes.plot(np.median(known.clip(_LEAST, _MOST)), place, "|", color="black", ms=13, mew=2)
    axes.axvline(1, color="0.4", lw=0.8)
    axes.set_xscale("log")
    axes.set_xlim(_LEAST / 1.15, _MOST * 1.15)
    axes.set_yticks(range(len(ratios)), list(ratios.index), fontsize=8)
    axes.set_ylim(len(ratios) - 0.4, -0.6)
    tidy(axes)
    axes.set_xlabel("final train loss ÷ best swept baseline's (○ small, □ large batch, | median)")
    fig.suptitle(
        f"each dot a workload; at an edge: a factor of more than {_MOST:g}, or diverged",
        fontsize=11,
    )
    return save(fig, path)


def draw_workload(title: str, curves: Frame, seconds: Mapping[str, float], path: Path) -> Path:
    """Train loss against steps, and against time in steps of Adam.

    Args:
      title: above both.
      curves: columns `label`, `step`, `train_loss`, one row per evaluation, medians of the seeds.
      seconds: per step relative to Adam's, by label.
      path: of the file.
    """
    fig = figure(10.0, 4.6)
    left, right = fig.subplots(1, 2, sharey=True)
    of_optimizer = colors(map(_optimizer, curves["label"]))
    positive = bool((curves["train_loss"] > 0).all())
    for label, rows in curves.groupby("label", sort=False):
        name = str(label)
        known = rows[np.isfinite(rows["train_loss"])]
        dash = ":" if name.endswith(" default") else "--" if name.endswith("+average") else "-"
        color = of_optimizer[_optimizer(name)]
        width = 2.2 if name.partition("+")[0] in ("meka", "adameka") else 1.2
        for axes, stretch in ((left, 1.0), (right, seconds[name])):
            x = known["step"] * stretch
            axes.plot(x, known["train_loss"], dash, color=color, lw=width, label=name)
    for axes, words in ((left, "steps"), (right, "time in steps of Adam")):
        axes.set_yscale("log" if positive else "linear")
        axes.set_xlabel(words)
        tidy(axes)
    left.set_ylabel("train loss")
    right.set_xlim(0, 3 * curves["step"].max())
    starts = curves.groupby("label")["train_loss"].first()
    starts = starts[np.isfinite(starts)]
    if len(starts):  # what diverges must not hide the rest
        left.set_ylim(top=(2 if positive else 1) * float(np.percentile(starts, 75)))
    legend_below(fig, left, 5)
    fig.suptitle(f"{title}: median of the seeds")
    path.parent.mkdir(parents=True, exist_ok=True)
    return save(fig, path)
