"""Newton steps without a trust region, by the ways to correct the predicted slope."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ...curvature import observe, quadratic_form
from ...optimizers import scale_by_kalman_filter

Slope = Literal["claimed", "shrunk", "regression", "half_batch"]

_RATIO_DECAY = 0.95  # of the ratios of slopes
_CURVATURE_DECAY = 0.9


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
