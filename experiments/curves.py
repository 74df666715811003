"""Curves of several seeds brought onto one axis: the middle and the range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from .runs import Run

Axis = Literal["steps", "seconds"]
_POINTS = 100  # of a curve with one value per step


class Curve(NamedTuple):
    """Median over the seeds, lowest and highest, at each point of the axis."""

    x: np.ndarray
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray


def of_measure(runs: Sequence[Run], measure: str, axis: Axis = "steps") -> Curve | None:
    """Curve of a measure of success; None if no run has it."""
    found = []
    for run in runs:
        steps, seconds, values = run.curve(measure)
        found.append((steps if axis == "steps" else seconds, values))
    return _combine(found)


def of_record(runs: Sequence[Run], name: str) -> Curve | None:
    """Curve of a record against steps, the median of every few steps; None if no run has it."""
    return _combine([_thin(run.record(name), run.stride) for run in runs])


def _thin(values: np.ndarray, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps in the middle of groups of equal size, and the medians of the groups.

    The values are those of the steps 1, 1 + stride, 1 + 2 stride, …
    """
    if not values.size:
        return values, values
    group = max(1, math.ceil(values.size / _POINTS))
    ends = np.arange(group, values.size + 1, group)
    medians = [np.median(values[end - group : end]) for end in ends]
    middles = ends - (group + 1) / 2  # counted from 0
    return 1 + stride * middles, np.array(medians)


def _combine(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> Curve | None:
    cleaned = [(x[np.isfinite(y)], y[np.isfinite(y)]) for x, y in curves if y.size]
    cleaned = [(x, y) for x, y in cleaned if y.size]
    if not cleaned:
        return None
    x = _common_axis([x for x, _ in cleaned])
    values = np.stack([np.interp(x, own, y) for own, y in cleaned])
    return Curve(x, np.median(values, axis=0), values.min(axis=0), values.max(axis=0))


def _common_axis(axes: Sequence[np.ndarray]) -> np.ndarray:
    """The axis that all share, or one with as many points that ends with the shortest."""
    first = axes[0]
    if all(np.array_equal(first, other) for other in axes[1:]):
        return first
    end = min(axis[-1] for axis in axes)
    return np.linspace(max(axis[0] for axis in axes), end, max(len(axis) for axis in axes))
