"""What stands out in the numbers of a run: the signs of the captions, found by thresholds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from .quantities import MISMATCH, NEWTON_RATIO, derive
from .sources import finite

_ENOUGH = 40  # records, below which quarters say little
DIFFERENCES = 3  # metric "differentiation" where a model is differentiated by differences


def findings(recorded: Mapping[str, pd.Series]) -> Iterator[str]:
    """Sentences about the last quarter of a run, against the first where that matters.

    Thresholds are round numbers: a finding says where to look, not what to do.
    """
    run = derive(recorded)
    # Comparisons with NaN, which stands for what is not known, are false.
    mismatch = _quarter(run, "gradient_mismatch", enough=1)
    if mismatch > MISMATCH:
        yield (
            "The gradient is not that of the mean of value_fn's losses: their slopes differ by "
            f"{100 * mismatch:.0f} %. Likely causes: it is of the sum and not of the mean; it was "
            "clipped, scaled or penalized (pass the raw one as grad=); it is of another batch, key "
            "or dropout mask; its sign is wrong."
        )
    if _last(run, "differentiation") == DIFFERENCES:
        yield (
            "Differentiated by differences of gradients, which cost two more gradients and leave "
            "about two digits of the curvature: value_fn has no forward-mode rule, or "
            "differentiation='differences' was chosen."
        )
    if (rejected := _last(run, "num_rejected")) > 0:
        yield f"Batches rejected because something was not finite: {rejected:,.0f}."
    snr = _quarter(run, "snr")
    if snr < 1:
        yield f"Noise-dominated: the signal-to-noise ratio of the slope is {snr:.2g}."
    if snr > 100 and not _quarter(run, "gain") <= 0.5:
        yield f"The batch may be larger than needed: signal-to-noise ratio {snr:.2g}."
    if (slope_ratio := _quarter(run, "slope_ratio")) < 0.3:
        yield f"Miscalibrated: {slope_ratio:.2g} of the predicted slope is confirmed."
    if (rise := _growth(run, "curvature")) > 10:
        yield f"Curvature rising: {rise:.2g} times that of the first quarter."
    elif (fall := _growth(run, "radius")) < 1e-3:
        yield f"Trust region collapsing: its radius is {fall:.1g} of the first quarter's."
    if (ratio := _quarter(run, NEWTON_RATIO)) > 1.8:
        yield f"At the edge of stability: {ratio:.2g} Newton steps a step."
    adapted = run.get("num_adaptations", pd.Series(dtype=float))
    if adapted.size >= _ENOUGH and not _last(run, "phase") < 1:
        late = adapted.tail(adapted.size - 3 * adapted.size // 4)
        steps = late.index[-1] - late.index[0]
        if late.iloc[-1] - late.iloc[0] < steps / 2:
            yield "Few steps are made as chosen: does something change the updates after the rule?"


def _last(run: Mapping[str, pd.Series], name: str) -> float:
    values = finite(run.get(name, pd.Series(dtype=float)))
    return values.iloc[-1] if values.size else np.nan


def _quarter(
    run: Mapping[str, pd.Series], name: str, first: bool = False, enough: int = _ENOUGH
) -> float:
    """Median of what is finite in the last quarter, or the first; NaN of too few records."""
    if name not in run or run[name].size < enough:
        return np.nan
    size = max(1, run[name].size // 4)
    values = run[name].head(size) if first else run[name].tail(size)
    return finite(values).median()


def _growth(run: Mapping[str, pd.Series], name: str) -> float:
    """Median of the last quarter over that of the first; NaN unless both are positive."""
    first, last = _quarter(run, name, first=True), _quarter(run, name)
    return last / first if first > 0 and last > 0 else np.nan
