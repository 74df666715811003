"""What a report shows: one plot a quantity, how to read it, and which sign means what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from ..recording import Recording
from .traces import Maker, Trace, computed, recorded, summed

Scale = Literal["log", "linear"]

# As mekax.optimizers has them, whose import would take longer than a report.
MISMATCH = 0.1  # of slopes, above which the gradient is not that of value_fn
OUTCOMES = ("none", "taken", "truncated", "external", "unresolved", "skipped", "rejected")


class Plot(NamedTuple):
    """One plot of a report.

    Attributes:
      title: what is shown.
      unit: of the vertical axis.
      lines: make the lines of a run; what it has not recorded is left out.
      read: how to read the plot.
      signs: what is seen, and what it means.
      scale: of the vertical axis, unless the values do not suit it.
      marks: heights of special meaning, with their names.
    """

    title: str
    unit: str
    lines: tuple[Maker, ...]
    read: str
    signs: tuple[tuple[str, str], ...] = ()
    scale: Scale = "log"
    marks: tuple[tuple[float, str], ...] = ()


class Drawn(NamedTuple):
    """A plot with the lines of all runs that have something to show in it.

    Attributes:
      plot: the plot.
      lines: run, counted from 0, and line.
    """

    plot: Plot
    lines: list[tuple[int, Trace]]


def newton_ratio(length: np.ndarray, curvature: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Step over Newton step, −L h / s; not a number where the line has no minimum ahead."""
    return np.where((slope < 0) & (curvature > 0), -length * curvature / slope, np.nan)


def _newton_step(
    step_size: np.ndarray, length: np.ndarray, curvature: np.ndarray, slope: np.ndarray
) -> np.ndarray:
    ratio = newton_ratio(length, curvature, slope)
    return step_size / np.where(ratio > 0, ratio, np.nan)


# Slope and curvature are per unit length, so that the length of the step is needed as well: as
# recorded, or from the norm of the direction.
_LENGTHS = ("step_length", "curvature", "slope")
_NORMS = ("step_size", "direction_norm", "curvature", "slope")


def _newton_lines(factor: float, label: str, dash: Literal["dashed", "dotted"]) -> Maker:
    return _first(
        computed(
            ("step_size", *_LENGTHS),
            lambda size, length, h, s: factor * _newton_step(size, length, h, s),
            label,
            dash,
        ),
        computed(
            _NORMS,
            lambda size, norm, h, s: factor * _newton_step(size, size * norm, h, s),
            label,
            dash,
        ),
    )


def _first(*makers: Maker) -> Maker:
    """The first line that can be made."""

    def make(recording: Recording) -> Trace | None:
        return next((line for line in (maker(recording) for maker in makers) if line), None)

    return make


RATIO = _first(
    computed(_LENGTHS, newton_ratio, "step / Newton step"),
    computed(
        _NORMS, lambda size, norm, h, s: newton_ratio(size * norm, h, s), "step / Newton step"
    ),
)

PLOTS = (
    Plot(
        "Loss",
        "loss",
        (
            recorded("loss", "batch", "faint"),
            recorded("loss_mean", "filtered", "solid", spread="loss_std"),
            recorded("train_loss", "whole training set", "dashed"),
            recorded("test_loss", "test set", "dotted"),
        ),
        "Faint: the mean loss of each batch. Solid: the filtered loss u with its band ± √s, one "
        "standard deviation. Dashed and dotted: the loss over all training or test data, where it "
        "was evaluated.",
        (
            ("The band is wider than what the line falls by", "noise-dominated: a batch does not "
             "show whether steps help. Take larger batches, or evaluate an average of iterates."),
            ("The line stays on one side of the faint points", "filter miscalibrated: it relies on "
             "predictions that do not come true. See predicted and realized change."),
            ("The line rises for long", "the steps are too long: see the step against the Newton "
             "step; or the learning rate, if it is a baseline's."),
        ),
    ),
    Plot(
        "Step size",
        "step size α",
        (
            recorded("step_size", "chosen", "solid", spread="step_size_std"),
            _newton_lines(1, "Newton step −s/h", "dashed"),
            _newton_lines(2, "edge of stability −2s/h", "dotted"),
        ),
        "Solid: the step size chosen, updates = −α · direction; its band is one standard "
        "deviation of the Newton step. Dashed: the Newton step −s/h, the minimum along the line. "
        "Dotted: −2s/h, the edge of stability, from where on a step gains nothing. Sizes are in "
        "units of the direction: compare shapes, not heights, between different directions.",
        (
            ("Falls steadily while the curvature does not rise", "noise-dominated: the step "
             "anneals. Late in training it should; early, larger batches let it stay longer."),
            ("Falls as the curvature rises", "the step follows the curvature; nothing is wrong."),
            ("Stays near the dotted line", "edge of stability: see the next plot."),
            ("Falls to 0 at single steps", "rejected batches: see there."),
        ),
    ),
    Plot(
        "Step against the Newton step",
        "α / Newton step",
        (RATIO,),
        "The step chosen over the Newton step −s/h, from the slope and the curvature that the "
        "rule believed in. At 1 the step ends at the minimum along its line, at 2 it gains "
        "nothing.",
        (
            ("Around 2 for long", "edge of stability: the loss oscillates along the steps and "
             "falls across them. It is no harm while the loss falls."),
            ("Well above 2", "the curvature believed is too large for the steps that turn out "
             "well, or the curvature is rising faster than the rule can follow."),
            ("Below 0.1 for long", "the next batch confirms little of the slope: noise-dominated, "
             "or trust region collapsing."),
        ),
        marks=((1, "Newton step"), (2, "edge of stability")),
    ),
    Plot(
        "Descent",
        "−slope",
        (recorded("slope", "−slope", "solid", spread="slope_std", factor=-1),),
        "Descent believed per unit length along the step, the negative slope, with one standard "
        "deviation. Above zero the loss falls.",
        (
            ("The band reaches zero all the time", "noise-dominated: the batch does not tell "
             "downhill from uphill."),
            ("Below zero for long", "the direction leads uphill: old momentum, or a gradient that "
             "does not belong to value_fn."),
        ),
    ),
    Plot(
        "Curvature",
        "curvature h",
        (recorded("curvature", "curvature", "solid", spread="curvature_std"),),
        "Second derivative of the loss per unit length along the step, with one standard "
        "deviation. Some optimizers measure it at a few steps only and keep it in between.",
        (
            ("Rises by orders of magnitude", "curvature rising (progressive sharpening): steps "
             "must shrink with it. Warm-up, normalization layers or smaller initial weights help."),
            ("Below zero for long", "a saddle or a plateau: the trust region bounds the step, not "
             "the curvature."),
        ),
    ),
    Plot(
        "Signal-to-noise ratio",
        "ratio",
        (
            recorded("snr", "of the slope"),
            recorded("gradient_snr", "of the gradient", "dashed"),
        ),
        "Solid: slope² over its variance. Dashed: ‖m‖² of the filtered gradient over the trace of "
        "its covariance, which noise in thousands of parameters keeps far lower.",
        (
            ("The solid line stays below 1", "noise-dominated: larger batches would make longer "
             "steps possible."),
            ("The solid line stays above 100", "too large a batch: smaller ones would lead to "
             "nearly the same steps at less cost."),
        ),
        marks=((1, "signal = noise"),),
    ),
    Plot(
        "Gradient norm",
        "norm",
        (
            recorded("gradient_norm", "gradient of the batch"),
            recorded("direction_norm", "direction", "dashed"),
        ),
        "Norm of the batch's gradient and of the direction that is followed.",
        (
            ("Levels off while the loss still falls", "noise-dominated: what is left is the noise "
             "of the batches."),
            ("Jumps by orders of magnitude", "outliers in the data, or curvature rising."),
            ("Falls to 0 at once", "units have died or the loss has saturated: the first steps "
             "were too long."),
        ),
    ),
    Plot(
        "Kalman gain",
        "gain K",
        (recorded("gain", "gain"),),
        "Weight of the newest gradient in the filtered one; 1/K is about the number of gradients "
        "that it averages.",
        (
            ("Near 1", "only the newest batch counts: too large a batch, so that there is nothing "
             "to filter, or a curvature that changes too fast to carry gradients along."),
            ("Near 0", "noise-dominated: the filter averages over many batches."),
        ),
    ),
    Plot(
        "Radius of the trust region",
        "step size τ",
        (recorded("radius", "radius τ"), recorded("step_size", "step size chosen", "dotted")),
        "Solid: the step size at which the trust region ends, learned from what the next batch "
        "shows after each step. Dotted: the step size chosen within it.",
        (
            ("Falls by orders of magnitude, and the loss no longer", "trust region collapsing: "
             "fresh batches do not confirm the predicted descent. Use larger batches, or batches "
             "drawn independently; see whether something changes the updates after the rule."),
            ("Far above the steps chosen", "something else limits them: max_step_size, curvature, "
             "or the largest number of Newton steps."),
        ),
    ),
    Plot(
        "Slope ratio",
        "measured / predicted slope",
        (recorded("slope_ratio", "slope ratio"),),
        "The ratio of the slope that the next, fresh batch measures to the predicted one, "
        "smoothed. At 1, predictions come true.",
        (
            ("Well below 1", "filter miscalibrated: it predicts descent that is the noise of its "
             "own batch. The trust region makes up for it."),
            ("Near 0 or below", "noise-dominated: none of the predicted descent is there."),
            ("Above 1", "there is more descent than predicted: the direction remembers what the "
             "batch does not show."),
        ),
        scale="linear",
        marks=((1, "predictions come true"), (0, "nothing is there")),
    ),
    Plot(
        "Predicted and realized change",
        "change of the loss, summed",
        (
            summed("predicted_change", "predicted", "dashed"),
            summed("realized_change", "realized"),
        ),
        "Dashed: the changes of the loss predicted for the steps, summed up. Solid: the changes of "
        "the filtered loss.",
        (
            ("The dashed line falls much faster", "filter miscalibrated: steps bring less than "
             "predicted."),
            ("The solid line falls faster", "steps bring more than one line can show; this is "
             "usual with momentum."),
            ("The dashed line falls, the solid one is level", "noise-dominated: the training has "
             "reached what these batches can tell."),
        ),
        scale="linear",
    ),
    Plot(
        "Phase",
        "phase",
        (recorded("phase", "phase"),),
        "0 while warm_start makes fixed steps, 1 once the adaptive rule makes them.",
        (("Stays at 0", "the criterion of the switch has not been met."),),
        scale="linear",
    ),
    Plot(
        "Gradient mismatch",
        "relative deviation",
        (recorded("gradient_mismatch", "mismatch"),),
        "Relative deviation of the slope of the gradient passed to update from that of value_fn, "
        "where the curvature was measured. Rounding leaves far less than a tenth.",
        (
            ("Above 0.1", "the gradient is not that of the mean of value_fn's losses: it is of "
             "their sum; it was clipped, scaled or penalized (pass the raw one as grad=); it is of "
             "another batch, key or dropout mask; or its sign is wrong."),
        ),
        marks=((MISMATCH, "inconsistent"),),
    ),
    Plot(
        "Outcome of the last step",
        "outcome",
        (recorded("outcome", "outcome"),),
        "What the batch found of the step before: taken as chosen, up to the radius; truncated, "
        "taken but kept shorter than the radius; external, made by something else; unresolved, "
        "lost in rounding; skipped, as something was not finite; rejected, and taken back.",
        (
            ("External for long", "something scales, clips or replaces updates after the rule, or "
             "a warm start is on."),
            ("Truncated for long", "max_step_size, the curvature or the acquisition keeps steps "
             "shorter than the radius."),
            ("Unresolved for long", "steps are below the rounding of the parameters: training has "
             "ended, or the parameters need a wider type."),
        ),
        scale="linear",
        marks=tuple(enumerate(OUTCOMES)),
    ),
    Plot(
        "Rejected batches",
        "batches",
        (recorded("num_rejected", "rejected"),),
        "Batches left out so far because something measured was not finite. After five in a row "
        "the step is blamed, and the parameters return to the last good point.",
        (
            ("Rises now and then", "outliers or overflow: look for the batches; in half precision, "
             "scale the loss."),
            ("Rises at every batch", "the loss or its derivatives are never finite at this point, "
             "or in value_fn itself: check log, sqrt and division at 0."),
        ),
        scale="linear",
    ),
    Plot(
        "Adaptations",
        "steps",
        (recorded("num_adaptations", "adaptations"),),
        "Steps made as chosen, from which the trust region was adapted, less those that were not.",
        (
            ("Level or falling", "steps are not made as chosen: something scales, clips or skips "
             "updates after the rule, or a warm start is on. Put the rule last in the chain."),
        ),
        scale="linear",
    ),
)  # fmt: skip

_NAMES = frozenset(
    name
    for names in (
        ("loss", "loss_mean", "loss_std", "train_loss", "test_loss"),
        ("step_size", "step_size_std", "step_length", "gradient_norm", "direction_norm"),
        ("slope", "slope_std", "curvature", "curvature_std", "snr", "gradient_snr", "gain"),
        ("radius", "slope_ratio", "predicted_change", "realized_change", "gradient_mismatch"),
        ("phase", "outcome", "num_rejected", "num_adaptations", "differentiation"),
    )
    for name in names
)


def draw(runs: Sequence[Recording]) -> list[Drawn]:
    """The plots that have something to show, those of other recorded names last."""
    others = sorted({name for run in runs for name in run.series} - _NAMES)
    found = (_drawn(plot, runs) for plot in (*PLOTS, *map(_other, others)))
    return [drawn for drawn in found if drawn.lines]


def _drawn(plot: Plot, runs: Sequence[Recording]) -> Drawn:
    return Drawn(plot, [(n, line) for n, run in enumerate(runs) for line in _lines(plot, run)])


def _lines(plot: Plot, run: Recording) -> Iterator[Trace]:
    for maker in plot.lines:
        line = maker(run)
        if line is not None and np.isfinite(line.values).any():
            yield line


def _other(name: str) -> Plot:
    return Plot(
        name,
        name,
        (recorded(name, name),),
        "As it was recorded.",
        scale="linear",
    )
