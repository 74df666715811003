"""What the numbers of a run say by themselves: the signs of the captions, found by thresholds."""

from __future__ import annotations

import numpy as np

from ..recording import Recording, Series
from .quantities import MISMATCH, RATIO

_ENOUGH = 40  # records, below which quarters say little
DIFFERENCES = 3  # metric "differentiation" where a model is differentiated by differences


def findings(run: Recording) -> list[str]:
    """Sentences about the last quarter of a run, against the first where that matters.

    Thresholds are round numbers: a finding says where to look, not what to do.
    """
    found = []
    mismatch = _late(run, "gradient_mismatch", enough=1)
    if mismatch is not None and mismatch > MISMATCH:
        found.append(
            "The gradient is not that of the mean of value_fn's losses: their slopes differ by "
            f"{100 * mismatch:.0f} %. Likely causes: it is of the sum and not of the mean; it was "
            "clipped, scaled or penalized (pass the raw one as grad=); it is of another batch, key "
            "or dropout mask; its sign is wrong."
        )
    if _last(run, "differentiation") == DIFFERENCES:
        found.append(
            "Differentiated by differences of gradients, which cost two more gradients and leave "
            "about two digits of the curvature: value_fn has no forward-mode rule, or "
            "differentiation='differences' was chosen."
        )
    rejected = _last(run, "num_rejected")
    if rejected:
        found.append(f"Batches rejected as something was not finite: {rejected:,.0f}.")
    snr, gain = _late(run, "snr"), _late(run, "gain")
    if snr is not None and snr < 1:
        found.append(f"Noise-dominated: the signal-to-noise ratio of the slope is {snr:.2g}.")
    if snr is not None and snr > 100 and (gain is None or gain > 0.5):
        found.append(f"The batch may be larger than needed: signal-to-noise ratio {snr:.2g}.")
    slope_ratio = _late(run, "slope_ratio")
    if slope_ratio is not None and slope_ratio < 0.3:
        found.append(f"Miscalibrated: {slope_ratio:.2g} of the predicted slope is confirmed.")
    rise = _ratio(run, "curvature")
    if rise is not None and rise > 10:
        found.append(f"Curvature rising: {rise:.2g} times that of the first quarter.")
    fall = _ratio(run, "radius")
    if fall is not None and fall < 1e-3 and not (rise and rise > 10):
        found.append(f"Trust region collapsing: its radius is {fall:.1g} of the first quarter's.")
    ratio = RATIO(run)
    if ratio is not None:
        middle = _median(Series(ratio.steps, ratio.values), late=True)
        if middle is not None and middle > 1.8:
            found.append(f"At the edge of stability: {middle:.2g} Newton steps a step.")
    return found + _not_adapted(run)


def _not_adapted(run: Recording) -> list[str]:
    """Whether the steps made are not those that were chosen."""
    series = run.series.get("num_adaptations")
    phase = _last(run, "phase")
    if series is None or series.steps.size < _ENOUGH or (phase is not None and phase < 1):
        return []
    begin = 3 * series.steps.size // 4
    gained = series.values[-1] - series.values[begin]
    made = series.steps[-1] - series.steps[begin]
    if gained >= made / 2:
        return []
    return ["Few steps are made as chosen: does something change the updates after the rule?"]


def _last(run: Recording, name: str) -> float | None:
    if name not in run.series:
        return None
    values = run.series[name].values
    values = values[np.isfinite(values)]
    return float(values[-1]) if values.size else None


def _late(run: Recording, name: str, enough: int = _ENOUGH) -> float | None:
    return _median(run.series[name], late=True, enough=enough) if name in run.series else None


def _ratio(run: Recording, name: str) -> float | None:
    """Median of the last quarter over that of the first, if both are positive."""
    if name not in run.series:
        return None
    first, last = (_median(run.series[name], late) for late in (False, True))
    return last / first if first and last and first > 0 and last > 0 else None


def _median(series: Series, late: bool, enough: int = _ENOUGH) -> float | None:
    """Median over the last quarter, or the first."""
    values = series.values
    if values.size < enough:
        return None
    quarter = max(1, values.size // 4)
    part = values[-quarter:] if late else values[:quarter]
    part = part[np.isfinite(part)]
    return float(np.median(part)) if part.size else None
