"""What the step rule was chosen over, for ablations: other slopes, horizons and switches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ...curvature import LineBelief, observe, quadratic_form
from ...optimizers import (
    TrustRegion,
    adameka,
    adaptive_trust_region,
    improvement_threshold,
    meka,
    metrics,
    newton_trust_region,
    scale_by_expected_improvement,
    scale_by_kalman_filter,
    warm_start,
)

__all__ = [
    "adameka",
    "adaptive_trust_region",
    "after_adam",
    "after_filtered_adam",
    "improvement_threshold",
    "look_ahead",
    "meka",
    "newton_steps",
    "newton_trust_region",
    "step",
    "switch_both_ways",
    "warm_start",
    "within_budget",
]

step = scale_by_expected_improvement
Slope = Literal["claimed", "shrunk", "regression", "half_batch"]

_RATIO_DECAY = 0.95  # of the ratios of slopes
_CURVATURE_DECAY = 0.9
_LEAST_PART = 1e-3  # of the radius, at the end of a budget


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


def within_budget(trust_region: TrustRegion, steps: int) -> TrustRegion:
    """A trust region whose radius decays linearly over a budget of steps.

    Args:
      trust_region: what learns the radius; its state counts the lines seen in `steps`.
      steps: the budget.
    """

    def update(state: Any, *observed: Any) -> Any:
        new = trust_region.update(state, *observed)
        part = jnp.maximum(1 - (new.steps - 1) / steps, _LEAST_PART)
        return new._replace(radius=part * new.radius)

    return trust_region._replace(update=update)


class NewtonState(NamedTuple):
    """State of `newton_steps`: the filter, moving averages of curvature and ratio, and a count."""

    filter: Any
    curvature: jax.Array
    ratio: jax.Array
    count: jax.Array


def newton_steps(slope: Slope) -> optax.GradientTransformationExtraArgs:
    """Newton steps −s/h along the filtered gradient m, h a moving average, without a trust region.

    The slope s per unit length is −ρ‖m‖, a ratio ρ of what the filter predicts:

    - `"claimed"`: ρ = 1, as published;
    - `"shrunk"`: ρ = (‖m‖² − tr P)/‖m‖², the posterior mean under a prior N(0, t²I);
    - `"regression"`: ρ = EMA[(m⁻·g) / ‖m⁻‖²], what a fresh gradient confirms of the last slope;
    - `"half_batch"`: ρ = EMA[(m·g₂) / ‖m‖²], m filtered from the first half of each batch alone
      and g₂ the gradient of the second.
    """
    kalman_filter = scale_by_kalman_filter()

    def init_fn(params: Any) -> NewtonState:
        zero = jnp.zeros(())
        return NewtonState(kalman_filter.init(params), zero, zero, jnp.zeros((), jnp.int32))

    def update_fn(updates, state, params=None, *, value_fn=None, **extra_args):
        del extra_args
        assert value_fn is not None
        seen_by_filter, second = value_fn, None
        if slope == "half_batch":
            half = value_fn(params).shape[0] // 2
            seen_by_filter = lambda p: value_fn(p)[:half]  # noqa: E731
            second = jax.grad(lambda p: jnp.mean(value_fn(p)[half:]))(params)
            updates = jax.grad(lambda p: jnp.mean(seen_by_filter(p)))(params)
        before = state.filter.belief.mean
        filtered: Any
        _, filtered = kalman_filter.update(updates, state.filter, params, value_fn=seen_by_filter)
        mean, count = filtered.belief.mean, state.count + 1
        length2 = jnp.maximum(optax.tree.vdot(mean, mean), 1e-30)
        ratio = jnp.ones(())
        if slope == "shrunk":
            ones = jax.tree.map(jnp.ones_like, mean)
            trace = quadratic_form(filtered.belief.variance, ones)
            ratio = jnp.maximum(1 - trace / length2, 0)
        elif slope == "regression":
            previous = jnp.maximum(optax.tree.vdot(before, before), 1e-30)
            # Nothing is known before the first step: the first ratio is 1.
            ratio = jnp.where(state.count == 0, 1.0, optax.tree.vdot(before, updates) / previous)
        elif second is not None:
            ratio = optax.tree.vdot(mean, second) / length2
        averaged = state.ratio
        if slope in ("regression", "half_batch"):
            averaged = optax.tree.update_moment(ratio, state.ratio, _RATIO_DECAY, 1)
            ratio = jnp.clip(optax.tree.bias_correction(averaged, _RATIO_DECAY, count), 0, 1)
        direction = optax.tree.scale(-1 / jnp.sqrt(length2), mean)
        newest = jnp.abs(observe(value_fn, params, direction).curvature)
        curvature = optax.tree.update_moment(newest, state.curvature, _CURVATURE_DECAY, 1)
        running = optax.tree.bias_correction(curvature, _CURVATURE_DECAY, count)
        step = ratio * jnp.sqrt(length2) / jnp.maximum(jnp.maximum(running, newest), 1e-30)
        return optax.tree.scale(step, direction), NewtonState(filtered, curvature, averaged, count)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def look_ahead(steps: int) -> Callable[[LineBelief, jax.Array], jax.Array]:
    """Expected decrease after several steps of one size on the noisy quadratic of the line.

    With step size α = −L/s, ρ = αh and slope variance p, the mean loss above the minimum after N
    steps is, in closed form (Schaul et al. 2013, arXiv 1206.1106; Wu et al. 2018,
    arXiv 1803.02021),

        E = ½ (s²/h) (1 − ρ)^{2N} + ½ h α² p (1 − (1 − ρ)^{2N}) / (1 − (1 − ρ)²)
    """

    def utility(belief: LineBelief, length: jax.Array) -> jax.Array:
        descent = jnp.maximum(-belief.slope, 1e-30)
        curvature = jnp.maximum(jnp.abs(belief.curvature), 1e-30)
        step_size = length / descent
        contraction = jnp.square(1 - step_size * curvature)
        terms = sum(contraction**k for k in range(steps))  # the quotient, also where it is 0/0
        noise = curvature * step_size**2 * belief.slope_variance * terms
        return -0.5 * (descent**2 / curvature * contraction**steps + noise)

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
