"""What our rule was chosen over, for ablations: other slopes, another horizon, another switch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ...curvature import directional
from ...curvature._trees import dot, quadratic_form
from ...optimizers import (
    adameka,
    improvement_threshold,
    meka,
    metrics,
    scale_by_expected_improvement,
    scale_by_kalman_filter,
    warm_start,
)
from ...optimizers._adameka import along_momentum
from ...optimizers._arguments import require_value_fn
from ...optimizers._expected_improvement import step_rule
from ...optimizers._kalman_filter import KalmanFilterState, gradient_filter
from ...optimizers._line_model import LineModel
from ...optimizers._step_rule import Constants

__all__ = [
    "adameka",
    "adameka_with",
    "after_adam",
    "after_filtered_adam",
    "improvement_threshold",
    "look_ahead",
    "meka",
    "newton_steps",
    "remaining",
    "step",
    "switch_both_ways",
    "warm_start",
]

step = scale_by_expected_improvement
Slope = Literal["claimed", "shrunk", "regression", "half_batch"]

_DECAY = 0.95  # of the parts of the claimed slope
_CURVATURE_DECAY = 0.9


def adameka_with(look_every: int = 10, **constants: Any) -> optax.GradientTransformationExtraArgs:
    """`adameka` with other constants than its own."""
    rule = step_rule("expected_improvement", True, None, 0.99, Constants(**constants))
    return along_momentum(rule, look_every=look_every)


def after_adam(
    step: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """Any steps along Adam's direction."""
    return optax.chain(optax.scale_by_adam(), step)


def after_filtered_adam(
    step: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """Any steps along the filtered gradient, scaled by Adam's second moment."""
    return optax.chain(scale_by_kalman_filter(), optax.scale_by_adam(b1=0), step)


def remaining(steps: int) -> Callable[[jax.Array], jax.Array]:
    """The part of a budget of steps that is left: a linear decay of the trust interval."""
    return lambda count: jnp.maximum(1 - (count - 1) / steps, 1e-3)


class NewtonState(NamedTuple):
    """State of `newton_steps`: the filter, moving averages of curvature and part, and a count."""

    filter: KalmanFilterState
    curvature: jax.Array
    part: jax.Array
    count: jax.Array


def newton_steps(slope: Slope) -> optax.GradientTransformationExtraArgs:
    """Newton steps a/h along the filtered gradient m, h a moving average, without a trust interval.

    The slope a per unit length is a part ρ of what the filter claims, ‖m‖:

    - `"claimed"`: ρ = 1, as published;
    - `"shrunk"`: ρ = (‖m‖² − tr P)/‖m‖², the posterior mean under a prior N(0, t²I);
    - `"regression"`: ρ = EMA[(m⁻·g) / ‖m⁻‖²], what a fresh gradient confirms of the last claim;
    - `"half_batch"`: ρ = EMA[(m·g₂) / ‖m‖²], m filtered from the first half of each batch alone
      and g₂ the gradient of the second.
    """
    filtering = gradient_filter("sketched", "scalar", 0.99, 0, "forward", None)

    def init_fn(params: Any) -> NewtonState:
        zero = jnp.zeros(())
        return NewtonState(filtering.init(params), zero, zero, jnp.zeros((), jnp.int32))

    def update_fn(updates, state, params=None, *, value_fn=None, **extra_args):
        del extra_args
        value_fn = require_value_fn("newton_steps", params, value_fn)
        seen_by_filter, second = value_fn, None
        if slope == "half_batch":
            half = value_fn(params).shape[0] // 2
            seen_by_filter = lambda p: value_fn(p)[:half]  # noqa: E731
            second = jax.grad(lambda p: jnp.mean(value_fn(p)[half:]))(params)
            updates = jax.grad(lambda p: jnp.mean(seen_by_filter(p)))(params)
        before = state.filter.belief.mean
        filtered, _, _ = filtering.update(updates, state.filter, params, seen_by_filter)
        mean, count = filtered.belief.mean, state.count + 1
        length2 = jnp.maximum(dot(mean, mean), 1e-30)
        part = jnp.ones(())
        if slope == "shrunk":
            ones = jax.tree.map(jnp.ones_like, mean)
            trace = quadratic_form(filtered.belief.variance, ones)
            part = jnp.maximum(1 - trace / length2, 0)
        elif slope == "regression":
            seen = dot(before, updates) / jnp.maximum(dot(before, before), 1e-30)
            # Nothing is known before the first step: the first part is 1.
            part = jnp.where(state.count == 0, 1.0, seen)
        elif second is not None:
            part = dot(mean, second) / length2
        smoothed = state.part
        if slope in ("regression", "half_batch"):
            smoothed = _DECAY * state.part + (1 - _DECAY) * part
            part = jnp.clip(smoothed / (1 - _DECAY**count), 0, 1)
        unit = jax.tree.map(lambda m: -m / jnp.sqrt(length2), mean)
        bend = jnp.abs(directional(value_fn, params, unit).curvature)
        curvature = _CURVATURE_DECAY * state.curvature + (1 - _CURVATURE_DECAY) * bend
        smooth = jnp.maximum(curvature / (1 - _CURVATURE_DECAY**count), bend)
        step = part * jnp.sqrt(length2) / jnp.maximum(smooth, 1e-30)
        updates = jax.tree.map(lambda v: step * v, unit)
        return updates, NewtonState(filtered, curvature, smoothed, count)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def look_ahead(steps: int) -> Callable[[LineModel, jax.Array], jax.Array]:
    """Expected decrease after several steps of one size on the noisy quadratic of the line.

    With step size α = L/a, ρ = αh and slope variance p, the mean loss above the minimum after N
    steps is, in closed form (Schaul et al. 2013, arXiv 1206.1106; Wu et al. 2018,
    arXiv 1803.02021),

        E = ½ (a²/h) (1 − ρ)^{2N} + ½ h α² p (1 − (1 − ρ)^{2N}) / (1 − (1 − ρ)²)
    """

    def utility(model: LineModel, length: jax.Array) -> jax.Array:
        slope = jnp.maximum(model.slope, 1e-30)
        bend = jnp.maximum(jnp.abs(model.curvature), 1e-30)
        size = length / slope
        contraction = jnp.square(1 - size * bend)
        left = contraction**steps
        terms = sum(contraction**k for k in range(steps))  # the quotient, also where it is 0/0
        return -0.5 * (slope**2 / bend * left + bend * size**2 * model.slope_variance * terms)

    return utility


def switch_both_ways(
    learning_rate: float,
    criterion: Callable[[Mapping[str, jax.Array]], jax.Array],
    adaptive: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """Adaptive steps where a criterion on the metrics holds, fixed ones where it does not."""

    def update_fn(updates, state, params=None, **extra_args):
        chosen, state = adaptive.update(updates, state, params, **extra_args)
        holds = criterion(metrics(state))
        fixed = jax.tree.map(lambda u: -learning_rate * u, updates)
        return jax.tree.map(lambda a, b: jnp.where(holds, a, b), chosen, fixed), state

    return optax.GradientTransformationExtraArgs(adaptive.init, update_fn)
