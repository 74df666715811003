"""Lines to draw, made of what a run recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from ..recording import Recording

Dash = Literal["solid", "dashed", "dotted", "faint"]


class Trace(NamedTuple):
    """One line of one run.

    Attributes:
      label: what it is, besides the name of the run.
      dash: how it is drawn.
      steps: increasing, shape (n,).
      values: shape (n,), finite or not.
      spread: half the height of a band around the line, shape (n,), or None.
    """

    label: str
    dash: Dash
    steps: np.ndarray
    values: np.ndarray
    spread: np.ndarray | None = None


Maker = Callable[[Recording], Trace | None]


def recorded(
    name: str, label: str, dash: Dash = "solid", spread: str | None = None, factor: float = 1
) -> Maker:
    """A line of one quantity times a factor, with a band whose half height another one tells."""

    def make(recording: Recording) -> Trace | None:
        if name not in recording.series:
            return None
        steps, values = recording.series[name]
        if spread is None or spread not in recording.series:
            return Trace(label, dash, steps, factor * values)
        steps, (values, half) = together(recording, name, spread)
        return Trace(label, dash, steps, factor * values, abs(factor) * half)

    return make


def computed(
    names: tuple[str, ...], compute: Callable[..., np.ndarray], label: str, dash: Dash = "solid"
) -> Maker:
    """A line computed from several quantities, at the steps that have all of them."""

    def make(recording: Recording) -> Trace | None:
        if any(name not in recording.series for name in names):
            return None
        steps, values = together(recording, *names)
        with np.errstate(all="ignore"):
            return Trace(label, dash, steps, compute(*values))

    return make


def summed(name: str, label: str, dash: Dash = "solid") -> Maker:
    """The sum of a change per step; a record stands for the steps since the one before."""

    def make(recording: Recording) -> Trace | None:
        if name not in recording.series:
            return None
        steps, values = recording.series[name]
        gaps = np.diff(steps, prepend=steps[0] - 1)
        changes = np.where(np.isfinite(values), values, 0)
        return Trace(label, dash, steps, np.cumsum(changes * gaps))

    return make


def together(recording: Recording, *names: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Several quantities at the steps that have all of them."""
    found = [recording.series[name] for name in names]
    steps = found[0].steps
    for series in found[1:]:
        steps = np.intersect1d(steps, series.steps, assume_unique=True)
    return steps, [series.values[np.isin(series.steps, steps)] for series in found]
