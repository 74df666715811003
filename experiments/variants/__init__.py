"""What the rows of the registry are made of: optimizers, and parts that only ablations need."""

import optax
from optax import contrib

from ...optimizers import (
    adameka,
    adaptive_trust_region,
    improvement_threshold,
    meka,
    newton_trust_region,
    scale_by_expected_improvement,
    scale_by_kalman_filter,
    warm_start,
)
from .blind import deaf, of_mean_loss
from .look_ahead import look_ahead
from .newton_steps import newton_steps
from .replayed import replayed
from .schedule_free_plus import schedule_free_plus
from .scheduled import scheduled
from .switch_both_ways import switch_both_ways
from .trust_region_budget import within_budget

__all__ = [
    "adameka",
    "adaptive_trust_region",
    "contrib",
    "deaf",
    "improvement_threshold",
    "look_ahead",
    "meka",
    "newton_steps",
    "newton_trust_region",
    "of_mean_loss",
    "optax",
    "replayed",
    "scale_by_expected_improvement",
    "scale_by_kalman_filter",
    "schedule_free_plus",
    "scheduled",
    "switch_both_ways",
    "warm_start",
    "within_budget",
]
