"""What a terminal shows of a run while it trains: the newest metrics and how they came about."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from rich.table import Table

_WIDTH = 40  # characters of a sparkline
_BARS = "▁▂▃▄▅▆▇█"
_METRICS = {
    "loss": "loss of the batch", "loss_mean": "loss, filtered", "step_size": "step size",
    "snr": "signal-to-noise", "curvature": "curvature", "slope_ratio": "slope ratio",
    "radius": "radius", "gain": "gain", "gradient_norm": "gradient norm",
    "num_rejected": "rejected batches",
}  # fmt: skip


def metrics_table(columns: Mapping[str, np.ndarray]) -> Table:
    """A row for each metric that a run records: its name, the newest value, all values in small.

    Args:
      columns: by name, the values at each step so far, shape (steps,).
    """
    table = Table.grid(padding=(0, 2))
    for name, words in _METRICS.items():
        values = np.asarray(columns.get(name, ()), float)
        if values.size:
            table.add_row(words, f"{values[-1]:.4g}", sparkline(values))
    return table


def sparkline(values: np.ndarray) -> str:
    """Values from first to last as a row of bars, medians of a few each; a space if not finite.

    The height is logarithmic where all are positive and span more than a factor of 10.

    Example:
      >>> sparkline(np.array([1.0, 10.0, 100.0, np.nan, 1000.0]))
      '▁▃▆ █'
    """
    parts = np.array_split(values, min(values.size, _WIDTH))
    finite = [part[np.isfinite(part)] for part in parts]
    middles = np.array([np.median(part) if part.size else np.nan for part in finite])
    if np.isnan(middles).all():
        return " " * middles.size
    low, high = np.nanmin(middles), np.nanmax(middles)
    if low > 0 and high / 10 > low:
        middles, low, high = np.log(middles), np.log(low), np.log(high)
    heights = (middles - low) / max(high - low, np.finfo(float).tiny) * (len(_BARS) - 1)
    return "".join(_BARS[round(h)] if math.isfinite(h) else " " for h in heights)
