"""What a report shows: one plot for each quantity, how to read it, and what to look for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from .sources import Recording, finite

Dash = Literal["solid", "dashed", "dotted", "faint"]

# As mekax.optimizers has them; importing JAX would take longer than writing a report.
MISMATCH = 0.1  # of slopes, above which the gradient is not that of value_fn
OUTCOMES = (
    "none",
    "taken",
    "truncated",
    "external",
    "unresolved",
    "skipped",
    "rejected",
    "returned",
)

# Derived quantities, under names that no user records.
_DESCENT, NEWTON_RATIO = "−slope", "step / Newton step"
_NEWTON_STEP, _STABILITY_EDGE = "Newton step −s/h", "edge of stability −2s/h"
_PREDICTED, _REALIZED = "Σ predicted change", "Σ realized change"


class Line(NamedTuple):
    """A quantity in a plot, how it is drawn, and the quantity that spreads a band around it."""

    quantity: str
    label: str
    dash: Dash = "solid"
    spread: str = ""


class Plot(NamedTuple):
    """One plot of a report."""

    title: str
    unit: str  # of the vertical axis
    lines: tuple[Line, ...]  # those that a run has not recorded are left out
    read: str  # how to read the plot
    signs: tuple[tuple[str, str], ...] = ()  # patterns to look for, and what they mean
    scale: Literal["log", "linear"] = "log"  # of the vertical axis, unless values do not suit it
    marks: tuple[tuple[float, str], ...] = ()  # heights of special meaning, with their names


class Trace(NamedTuple):
    """A line of one run, ready to be drawn."""

    run: int  # counted from 0
    label: str  # what it is, besides the name of the run
    dash: Dash
    strong: bool  # whether running medians are drawn over what was recorded
    values: pd.Series  # finite or NaN; indexed by step
    spread: pd.Series | None  # half the width of a band around the line, likewise


class Drawn(NamedTuple):
    """A plot with the lines of all runs that have something to show in it."""

    plot: Plot
    traces: list[Trace]


def _plot(title: str, unit: str, lines: tuple[Line, ...], text: str, **more: Any) -> Plot:
    """A plot whose text says how to read it and, after dashes, each sign and what it means."""
    read, *signs = " ".join(text.split()).split(" - ")
    pairs = (sign.partition(": ") for sign in signs)
    return Plot(title, unit, lines, read, tuple((sign, text) for sign, _, text in pairs), **more)


PLOTS = (
    _plot("Loss", "loss",
          (Line("loss", "batch", "faint"), Line("loss_mean", "filtered", spread="loss_std"),
           Line("train_loss", "whole training set", "dashed"),
           Line("test_loss", "test set", "dotted")), """
        Faint: mean loss of each batch. Solid: filtered loss u, with a band of one standard
        deviation √s. Dashed and dotted: loss over the training and the test data, where it was
        evaluated.
        - The band is wider than the descent: noise-dominated: a batch does not show whether steps
          help. Take larger batches, or evaluate an average of the iterates.
        - The line stays on one side of the faint points: filter miscalibrated: its predictions do
          not come true. See predicted and realized change.
        - The line rises for long: the steps are too long: see the step against the Newton step, or
          lower the learning rate of a baseline."""),
    _plot("Step size", "step size α",
          (Line("step_size", "chosen", spread="step_size_std"),
           Line(_NEWTON_STEP, _NEWTON_STEP, "dashed"),
           Line(_STABILITY_EDGE, _STABILITY_EDGE, "dotted")), """
        Solid: the step size chosen, updates = −α · direction, with a band of one standard deviation
        of the Newton step. Dashed: the Newton step −s/h, the minimum along the line. Dotted: the
        edge of stability −2s/h, beyond which a step gains nothing. The unit is the length of the
        direction: between directions compare shapes, not heights.
        - Falls steadily while the curvature does not rise: noise-dominated: the step anneals, as it
          should late in training. Early, larger batches keep it longer.
        - Falls as the curvature rises: the step follows the curvature; nothing is wrong.
        - Stays near the dotted line: edge of stability: see the next plot.
        - Falls to 0 at single steps: rejected batches: see there."""),
    _plot("Step against the Newton step", "α / Newton step",
          (Line(NEWTON_RATIO, NEWTON_RATIO),), """
        The step chosen over the Newton step −s/h of the estimated slope and curvature. At 1 the
        step ends at the minimum along its line; at 2 it gains nothing.
        - Around 2 for long: edge of stability: the loss oscillates along the steps and falls across
          them. This does no harm while the loss falls.
        - Well above 2: the curvature is estimated too large for the steps that turn out well, or it
          rises faster than the rule can follow.
        - Below 0.1 for long: the next batch confirms little of the slope: noise-dominated, or trust
          region collapsing.""", marks=((1, "Newton step"), (2, "edge of stability"))),
    _plot("Descent", "−slope", (Line(_DESCENT, "−slope", spread="slope_std"),), """
        Estimated descent per unit length along the step, the negative slope, with a band of one
        standard deviation. Above zero the loss falls.
        - The band always reaches zero: noise-dominated: the batch does not tell downhill from
          uphill.
        - Below zero for long: the direction leads uphill: old momentum, or a gradient that is not
          that of value_fn."""),
    _plot("Curvature", "curvature h",
          (Line("curvature", "curvature", spread="curvature_std"),), """
        Second derivative of the loss per unit length along the step, with a band of one standard
        deviation. Some optimizers measure it at some steps only and keep it in between.
        - Rises by orders of magnitude: curvature rising (progressive sharpening): steps must shrink
          with it. Warm-up, normalization layers or smaller initial weights help.
        - Below zero for long: a saddle or a plateau: the trust region bounds the step, not the
          curvature."""),
    _plot("Signal-to-noise ratio", "ratio",
          (Line("snr", "of the slope"), Line("gradient_snr", "of the gradient", "dashed")), """
        Solid: slope² over its variance. Dashed: ‖m‖² of the filtered gradient over the trace of its
        covariance, far lower because of the noise in thousands of parameters.
        - The solid line stays below 1: noise-dominated: larger batches allow longer steps.
        - The solid line stays above 100: too large a batch: smaller ones would lead to nearly the
          same steps at less cost.""", marks=((1, "signal = noise"),)),
    _plot("Gradient norm", "norm",
          (Line("gradient_norm", "gradient of the batch"),
           Line("direction_norm", "direction", "dashed")), """
        Norm of the gradient of the batch and of the direction of the step.
        - Levels off while the loss still falls: noise-dominated: what is left is the noise of the
          batches.
        - Jumps by orders of magnitude: outliers in the data, or curvature rising.
        - Falls to 0 at once: units have died or the loss has saturated: the first steps were too
          long."""),
    _plot("Kalman gain", "gain K", (Line("gain", "gain"),), """
        Weight of the newest gradient in the filtered one; 1/K is about the number of gradients that
        it averages.
        - Near 1: only the newest batch counts: too large a batch, which leaves nothing to filter,
          or a curvature that changes too fast to carry gradients along.
        - Near 0: noise-dominated: the filter averages over many batches."""),
    _plot("Radius of the trust region", "step size τ",
          (Line("radius", "radius τ"), Line("step_size", "step size chosen", "dotted")), """
        Solid: the step size at which the trust region ends, adapted to what the next batch shows
        after each step. Dotted: the step size chosen within it.
        - Falls by orders of magnitude, and the loss no longer: trust region collapsing: fresh
          batches do not confirm the predicted descent. Use larger batches, or batches drawn
          independently; check whether something changes the updates after the rule.
        - Far above the steps chosen: something else limits them: max_step_size, the curvature, or
          the largest number of Newton steps."""),
    _plot("Slope ratio", "measured / predicted slope", (Line("slope_ratio", "slope ratio"),), """
        The slope that the next, fresh batch measures over the predicted one, smoothed. At 1,
        predictions come true.
        - Well below 1: filter miscalibrated: it predicts descent that is the noise of its own
          batch. The trust region makes up for it.
        - Near 0 or below: noise-dominated: none of the predicted descent is there.
        - Above 1: there is more descent than predicted: the direction remembers what the batch does
          not show.
        """, scale="linear", marks=((1, "predictions come true"), (0, "nothing is there"))),
    _plot("Predicted and realized change", "change of the loss, summed",
          (Line(_PREDICTED, "predicted", "dashed"), Line(_REALIZED, "realized")), """
        Dashed: sum of the predicted changes of the loss. Solid: sum of the changes of the filtered
        loss.
        - The dashed line falls much faster: filter miscalibrated: steps bring less than predicted.
        - The solid line falls faster: steps bring more than one line can show; usual with momentum.
        - The dashed line falls, the solid one is level: noise-dominated: the training has reached
          what these batches can tell.""", scale="linear"),
    _plot("Phase", "phase", (Line("phase", "phase"),), """
        0 while warm_start makes fixed steps, 1 once the adaptive rule makes them.
        - Stays at 0: the criterion of the switch has not been met.""", scale="linear"),
    _plot("Gradient mismatch", "relative deviation", (Line("gradient_mismatch", "mismatch"),), """
        Relative deviation between the slopes of the gradient passed to update and of value_fn,
        where the curvature was measured. Rounding leaves far less than a tenth.
        - Above 0.1: the gradient is not that of the mean of value_fn's losses: it is of their sum;
          it was clipped, scaled or penalized (pass the raw one as grad=); it is of another batch,
          key or dropout mask; or its sign is wrong.""", marks=((MISMATCH, "inconsistent"),)),
    _plot("Outcome of the last step", "outcome", (Line("outcome", "outcome"),), """
        What became of the step before. Taken: as chosen, up to the radius; truncated: kept shorter
        than the radius; external: made by something else; unresolved: lost in rounding; skipped:
        something was not finite; rejected: taken back; returned: to the average, because the loss
        rose far above that there.
        - External for long: something scales, clips or replaces updates after the rule, or a warm
          start is on.
        - Truncated for long: max_step_size, the curvature or the acquisition keeps steps shorter
          than the radius.
        - Unresolved for long: steps are below the rounding of the parameters: training has ended,
          or the parameters need a wider type.
        """, scale="linear", marks=tuple(enumerate(OUTCOMES))),
    _plot("Rejected batches", "batches", (Line("num_rejected", "rejected"),), """
        Batches left out so far because something measured was not finite. After several in a row
        the rule blames the step and returns to the last good parameters.
        - Rises now and then: outliers or overflow: look for the batches; in half precision, scale
          the loss.
        - Rises at every batch: the loss or its derivatives are never finite at this point, or in
          value_fn itself: check log, sqrt and division at 0.""", scale="linear"),
    _plot("Adaptations", "steps", (Line("num_adaptations", "adaptations"),), """
        Steps made as chosen, from which the trust region was adapted, less those that were not.
        - Level or falling: steps are not made as chosen: something scales, clips or skips updates
          after the rule, or a warm start is on. Put the rule last in the chain.
        """, scale="linear"),
)  # fmt: skip

_HIDDEN = {"slope", "step_length", "predicted_change", "realized_change", "differentiation"}
_KNOWN = _HIDDEN.union(*(line[::3] for plot in PLOTS for line in plot.lines))  # and the spreads


def draw(runs: Sequence[Recording]) -> list[Drawn]:
    """The plots that have something to show, those of other recorded names last."""
    others = sorted({name for run in runs for name in run.series} - _KNOWN)
    plots = [*PLOTS, *(Plot(n, n, (Line(n, n),), "As recorded.", scale="linear") for n in others)]
    series = [derive(run.series) for run in runs]
    points = min(1_500, max(300, 3_000 // len(runs)))  # of a line; keeps pages below 6 MB
    drawn = [
        Drawn(plot, [t for run, one in enumerate(series) for t in _traces(plot, run, one, points)])
        for plot in plots
    ]
    return [one for one in drawn if one.traces]


def derive(recorded: Mapping[str, pd.Series]) -> dict[str, pd.Series]:
    """All quantities: what was recorded, and what follows from it."""
    series = dict(recorded)

    def add(name: str, compute: Callable[..., pd.Series], *of: str) -> None:
        if all(quantity in series for quantity in of):
            series[name] = compute(*(one for _, one in _together(series, *of).items()))

    # Slope and curvature are per unit length, so that the length of the step is needed as well.
    if "step_length" not in series:
        add("step_length", lambda size, norm: size * norm, "step_size", "direction_norm")
    add(_DESCENT, lambda slope: -slope, "slope")
    add(NEWTON_RATIO, _newton_ratio, "step_length", "curvature", "slope")
    add(_NEWTON_STEP, lambda size, ratio: size / ratio.where(ratio > 0), "step_size", NEWTON_RATIO)
    add(_STABILITY_EDGE, lambda step: 2 * step, _NEWTON_STEP)
    add(_PREDICTED, _summed, "predicted_change")
    add(_REALIZED, _summed, "realized_change")
    return series


def _newton_ratio(length: pd.Series, curvature: pd.Series, slope: pd.Series) -> pd.Series:
    """Step over Newton step, −L h / s; NaN where the line has no minimum ahead."""
    return (-length * curvature / slope).where((slope < 0) & (curvature > 0))


def _summed(change: pd.Series) -> pd.Series:
    """Running sum, in which a record stands for the steps before it."""
    gaps = np.diff(change.index, prepend=change.index[0] - 1)
    return (change.where(np.isfinite(change), 0) * gaps).cumsum()


def _together(series: Mapping[str, pd.Series], *names: str) -> pd.DataFrame:
    """Several quantities at the steps that have all of them."""
    return pd.concat({name: series[name] for name in names}, axis=1, join="inner")


def _traces(plot: Plot, run: int, series: Mapping[str, pd.Series], points: int) -> Iterator[Trace]:
    lines = [line for line in plot.lines if line.quantity in series]
    lines = [line for line in lines if finite(series[line.quantity]).size]
    solid = any(line.dash == "solid" for line in lines)
    for quantity, label, dash, spread in lines:
        frame = _together(series, quantity, *([spread] if spread in series else []))
        frame = frame.iloc[thin(frame[quantity].to_numpy(), points)]
        frame = frame.where(np.isfinite(frame))
        strong = dash != "faint" or not solid
        yield Trace(run, label, dash, strong, frame[quantity], frame.get(spread))


def thin(values: np.ndarray, points: int) -> np.ndarray:
    """Which values of a long line to draw so that no spike is lost: indices, at most `points`.

    Of every few values in a row the smallest, the middle one and the largest are kept, so that
    every point that is drawn was recorded. Values that are not finite count as the largest.

    Example:
      >>> thin(np.array([0.0, 1.0, 2.0, 9.0, 4.0, 5.0, 6.0, 7.0]), points=6).tolist()
      [0, 1, 3, 4, 5, 7]
    """
    if values.size <= points:
        return np.arange(values.size)
    group = -(-values.size // (points // 3))
    kept = []
    for start in range(0, values.size, group):
        order = start + np.argsort(values[start : start + group], kind="stable")
        kept += [order[0], order[(order.size - 1) // 2], order[-1]]
    return np.unique(kept)
