"""What the figures of a comparison show: one panel per quantity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from . import curves
from .palette import BY_OPTIMIZER
from .summary import Row

_DASHES = ("-", "--", ":", "-.")  # for several learning rates of one kind


class Style(NamedTuple):
    color: str
    dash: str


class Panel(NamedTuple):
    """One figure: the name of its file, whether there is anything to draw, and how."""

    file: str
    has: Callable[[Sequence[Row]], bool]
    draw: Callable[[Axes, Sequence[Row]], None]


def styles(rows: Sequence[Row]) -> list[Style]:
    """Color by kind of optimizer, dashes by learning rate."""
    seen: dict[str, int] = {}
    result = []
    for row in rows:
        count = seen.get(row.spec.kind, 0)
        seen[row.spec.kind] = count + 1
        result.append(Style(BY_OPTIMIZER[row.spec.kind], _DASHES[count % len(_DASHES)]))
    return result


def _lines(
    axes: Axes,
    rows: Sequence[Row],
    get: Callable[[Row], curves.Curve | None],
    bands: bool = True,
) -> list[Line2D]:
    """Draw a line and, over several seeds, a band for each row."""
    drawn = []
    for row, style in zip(rows, styles(rows), strict=True):
        curve = get(row)
        if curve is None:
            continue
        (line,) = axes.plot(curve.x, curve.middle, color=style.color, ls=style.dash, lw=1.6)
        line.set_label(row.label)
        if bands and len(row.runs) > 1:
            axes.fill_between(curve.x, curve.low, curve.high, color=style.color, alpha=0.18, lw=0)
        drawn.append(line)
    axes.grid(True, which="major", color="0.9", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return drawn


def _train_loss(axis: curves.Axis) -> Callable[[Axes, Sequence[Row]], None]:
    def draw(axes: Axes, rows: Sequence[Row]) -> None:
        drawn = _lines(axes, rows, lambda row: curves.of_measure(row.runs, "train_loss", axis))
        log_scale(axes, drawn)
        axes.set_title(f"train loss against {axis}")
        axes.set_xlabel("steps" if axis == "steps" else "training time (s)")
        axes.set_ylabel("train loss")

    return draw


def _test_accuracy(axes: Axes, rows: Sequence[Row]) -> None:
    drawn = _lines(axes, rows, lambda row: _percent(curves.of_measure(row.runs, "test_accuracy")))
    # The first evaluations are those of a guesser: look at where the curves end.
    values = [np.asarray(line.get_ydata()) for line in drawn]
    late = np.concatenate([y[len(y) // 4 :] for y in values])
    low, high = float(late.min()), float(late.max())
    margin = max(0.08 * (high - low), 0.5)
    axes.set_ylim(max(low - margin, 0), min(high + margin, 100.5))
    axes.set_title("test accuracy")
    axes.set_xlabel("steps")
    axes.set_ylabel("test accuracy (%)")


def _test_loss(axes: Axes, rows: Sequence[Row]) -> None:
    _lines(axes, rows, lambda row: curves.of_measure(row.runs, "test_loss"))
    axes.set_title("test loss")
    axes.set_xlabel("steps")
    axes.set_ylabel("test loss")


def _step_size(axes: Axes, rows: Sequence[Row]) -> None:
    drawn = _lines(axes, rows, lambda row: curves.of_record(row.runs, "step_size"), bands=False)
    for row, style in zip(rows, styles(rows), strict=True):
        size = curves.of_record(row.runs, "step_size")
        spread = curves.of_record(row.runs, "step_size_std")
        if size is None or spread is None or len(size.x) != len(spread.x):
            continue
        factor = 1 + spread.middle / np.maximum(size.middle, np.finfo(np.float32).tiny)
        low, high = size.middle / factor, size.middle * factor
        axes.fill_between(size.x, low, high, color=style.color, alpha=0.14, lw=0)
    log_scale(axes, drawn, margin=3.0)
    axes.set_title("step size and its uncertainty (± 1 std)")
    axes.set_xlabel("steps")
    axes.set_ylabel("step size")


def _curvature(axes: Axes, rows: Sequence[Row]) -> None:
    drawn = _lines(axes, rows, lambda row: curves.of_record(row.runs, "curvature"))
    log_scale(axes, drawn)
    negative = any((np.asarray(line.get_ydata()) <= 0).any() for line in drawn)
    axes.set_title("curvature along the step" + (" (▾ where negative)" if negative else ""))
    axes.set_xlabel("steps")
    axes.set_ylabel("curvature (loss / length²)")


def _gain(axes: Axes, rows: Sequence[Row]) -> None:
    drawn = _lines(axes, rows, lambda row: curves.of_record(row.runs, "gain"))
    log_scale(axes, drawn)
    axes.set_title("Kalman gain")
    axes.set_xlabel("steps")
    axes.set_ylabel("weight of the newest gradient")


def log_scale(axes: Axes, lines: Sequence[Line2D], margin: float = 1.5) -> None:
    """Logarithmic where nearly all values are positive, with the others marked at the foot.

    Symmetric about zero where many are not positive.
    """
    values = np.concatenate([np.asarray(line.get_ydata()) for line in lines])
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


def _percent(curve: curves.Curve | None) -> curves.Curve | None:
    if curve is None:
        return None
    return curves.Curve(curve.x, 100 * curve.middle, 100 * curve.low, 100 * curve.high)


def _measured(name: str) -> Callable[[Sequence[Row]], bool]:
    return lambda rows: any(curves.of_measure(row.runs, name) is not None for row in rows)


def _recorded(name: str) -> Callable[[Sequence[Row]], bool]:
    return lambda rows: any(curves.of_record(row.runs, name) is not None for row in rows)


def _only_loss(rows: Sequence[Row]) -> bool:
    return _measured("test_loss")(rows) and not _measured("test_accuracy")(rows)


PANELS = (
    Panel("train_loss_steps", _measured("train_loss"), _train_loss("steps")),
    Panel("train_loss_seconds", _measured("train_loss"), _train_loss("seconds")),
    Panel("test_accuracy", _measured("test_accuracy"), _test_accuracy),
    Panel("test_loss", _only_loss, _test_loss),
    Panel("step_size", _recorded("step_size"), _step_size),
    Panel("curvature", _recorded("curvature"), _curvature),
    Panel("gain", _recorded("gain"), _gain),
)
