"""Gradient transformations: what we do about what we know."""

from ._acquisitions import (
    expected_decrease,
    expected_improvement,
    improvement_threshold,
    log_expected_improvement,
    probability_of_improvement,
)
from ._adameka import adameka
from ._average import average_iterates, eval_params
from ._expected_improvement import scale_by_expected_improvement
from ._kalman_filter import scale_by_kalman_filter
from ._line_model import LineModel
from ._losses_and_grad import losses_and_grad
from ._meka import meka
from ._metrics import metrics
from ._nnx import nnx_value_fn
from ._warm_start import warm_start

__all__ = [
    "LineModel",
    "adameka",
    "average_iterates",
    "eval_params",
    "expected_decrease",
    "expected_improvement",
    "improvement_threshold",
    "log_expected_improvement",
    "losses_and_grad",
    "meka",
    "metrics",
    "nnx_value_fn",
    "probability_of_improvement",
    "scale_by_expected_improvement",
    "scale_by_kalman_filter",
    "warm_start",
]
