from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..curvature import BatchStatistics, DirectionalStatistics
from ..curvature._mapped_axis import AxisName
from ..curvature._push_forward import Differentiation
from ..curvature._trees import PyTree, dot, quadratic_form
from ._arguments import require_value_fn
from ._direction import norm
from ._ema import debias
from ._expected_improvement import StepRule, look_ahead
from ._finite import select_state
from ._kalman_filter import GradientFilter, KalmanFilterState, displacement_from
from ._step_rule import Behind, StepRuleState


class Preconditioner(NamedTuple):
    """A positive diagonal scaling S that may learn from gradients.

    Attributes:
      init: params → state.
      update: (state, gradient, count) → state.
      apply: (state, mean, count) → S·mean.
    """

    init: Callable[[PyTree], PyTree]
    update: Callable[[PyTree, PyTree, jax.Array], PyTree]
    apply: Callable[[PyTree, PyTree, jax.Array], PyTree]


class SelfTuningState(NamedTuple):
    """State of `meka` and `adameka`: gradient filter, preconditioner, step rule."""

    filter: KalmanFilterState
    preconditioner: PyTree
    rule: StepRuleState


def self_tuning(
    name: str,
    filtering: GradientFilter,
    preconditioner: Preconditioner,
    rule: StepRule,
    differentiation: Differentiation,
    axis_name: AxisName | None,
) -> optax.GradientTransformationExtraArgs:
    """Compose filter, preconditioner and step rule, which share beliefs and measurements."""

    def init_fn(params: PyTree) -> SelfTuningState:
        return SelfTuningState(
            filtering.init(params), preconditioner.init(params), rule.init(params)
        )

    def update_fn(updates, state, params=None, *, value_fn=None, **extra_args):
        del extra_args
        value_fn = require_value_fn(name, params, value_fn)
        filtered, stats, finite = filtering.update(updates, state.filter, params, value_fn)
        scaling = preconditioner.update(state.preconditioner, updates, filtered.count)
        scaled = preconditioner.apply(scaling, filtered.belief.mean, filtered.count)
        ahead, direction = look_ahead(value_fn, params, scaled, differentiation, axis_name)
        gain = _gain_along(direction, filtered, filtering.decay)
        ahead = ahead._replace(
            slope=-dot(filtered.belief.mean, direction),
            slope_variance=gain * ahead.slope_variance,
        )
        behind = _look_behind(state.filter, params, stats)
        updates, new_rule, finite = rule.step(
            state.rule, behind, ahead, direction, params, state.filter.params, finite
        )
        refused = state.filter._replace(
            skipped=jnp.asarray(optax.safe_increment(state.filter.skipped))
        )
        return updates, SelfTuningState(
            select_state(finite, filtered, refused),
            select_state(finite, scaling, state.preconditioner),
            new_rule,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _look_behind(before: KalmanFilterState, params: PyTree, stats: BatchStatistics) -> Behind:
    """Compare what the filter believed along the displacement with what the batch shows there."""
    displacement = displacement_from(before.params, params, before.count == 0)
    return Behind(
        distance=norm(displacement),
        claimed_slope=dot(before.belief.mean, displacement),
        claimed_slope_variance=quadratic_form(before.belief.variance, displacement),
        seen=DirectionalStatistics(
            value=stats.value,
            value_variance=stats.value_variance,
            slope=stats.slope,
            slope_variance=stats.slope_variance,
            curvature=dot(displacement, stats.product),
            curvature_variance=quadratic_form(stats.product_variance, displacement),
        ),
    )


def _gain_along(direction: PyTree, filtered: KalmanFilterState, decay: float) -> jax.Array:
    """Ratio of the filter's variance to the batch's along a direction, d·Pd / d·Σd.

    A corrected scalar variance is P = K Σ, so this is the gain; measured along d it turns the
    exact variance of the batch's slope into that of the filter's: d·Pd ≈ K·Var_i(g_i·d)/n. The
    isotropic P alone would say nothing useful about a preconditioned direction.
    """
    noise = quadratic_form(debias(filtered.noise, decay, filtered.count), direction)
    variance = quadratic_form(filtered.belief.variance, direction)
    return jnp.where(noise > 0, variance / jnp.where(noise > 0, noise, 1), 1)
