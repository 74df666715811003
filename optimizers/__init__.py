"""Gradient transformations: a direction, and the step rule."""

from ._acquisition import (
    Acquisition,
    expected_decrease,
    expected_improvement,
    improvement_threshold,
    log_expected_improvement,
    probability_of_improvement,
)
from ._adameka import adameka
from ._arguments import close_over
from ._average import average_iterates
from ._eval_params import eval_params
from ._expected_improvement import scale_by_expected_improvement
from ._kalman_filter import scale_by_kalman_filter
from ._meka import meka
from ._metrics import metrics
from ._nnx import nnx_value_fn
from ._trust_region import (
    Evidence,
    Outcome,
    TrustRegion,
    adaptive_trust_region,
    newton_trust_region,
)
from ._warm_start import warm_start

__all__ = [
    "Acquisition",
    "Evidence",
    "Outcome",
    "TrustRegion",
    "adameka",
    "adaptive_trust_region",
    "average_iterates",
    "close_over",
    "eval_params",
    "expected_decrease",
    "expected_improvement",
    "improvement_threshold",
    "log_expected_improvement",
    "meka",
    "metrics",
    "newton_trust_region",
    "nnx_value_fn",
    "probability_of_improvement",
    "scale_by_expected_improvement",
    "scale_by_kalman_filter",
    "warm_start",
]
