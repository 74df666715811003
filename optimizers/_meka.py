from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..curvature import BatchStatistics, Covariance, DirectionalStatistics, directional
from ..curvature._mapped_axis import AxisName
from ..curvature._push_forward import Differentiation
from ..curvature._trees import PyTree, dot, quadratic_form
from ._acquisitions import Acquisition, AcquisitionName
from ._arguments import require_gradient, require_value_fn
from ._direction import norm, unit
from ._ema import debias
from ._expected_improvement import step_rule
from ._finite import select_state
from ._kalman_filter import (
    KalmanFilterState,
    Statistics,
    displacement_from,
    gradient_filter,
)
from ._mask import masked
from ._step_rule import Ahead, Behind, StepRuleState


class MekaState(NamedTuple):
    """State of `meka`: gradient filter and step rule."""

    filter: KalmanFilterState
    rule: StepRuleState


def meka(
    acquisition: AcquisitionName | Acquisition = "expected_improvement",
    statistics: Statistics = "sketched",
    covariance: Covariance = "scalar",
    calibrate: bool = True,
    max_step_size: jax.typing.ArrayLike | None = None,
    mask: Any = None,
    decay: float = 0.99,
    seed: int = 0,
    differentiation: Differentiation = "forward",
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Self-tuning descent: Kalman-filtered gradient, step size by expected improvement.

        d = −m,    α = argmax over (0, α_tr] of E[max(−Δ(α), 0)],    θ ← θ + α d

    The mean m of the gradient filter (`scale_by_kalman_filter`) is the direction, the step rule
    (`scale_by_expected_improvement`) its length; they share beliefs and measurements, so the
    slope is the filter's, −d·m, and its variance the filter's share K·Var_i(g_i·d)/n of the
    batch's. There is no learning rate. `acquisition="probability_of_improvement"` with
    `calibrate=False` is the published rule.

    Args:
      acquisition: `"expected_improvement"`, `"probability_of_improvement"`,
        `"expected_decrease"`, or a callable such as `improvement_threshold(0.9)`.
      statistics: `"sketched"` for any `value_fn`; `"exact"` for one made by
        `mekax.curvature.per_example`.
      covariance: of the filter, `"scalar"`, `"per_leaf"` or `"diagonal"`.
      calibrate: adapt the trust interval to what steps turn out to do.
      max_step_size: cap on α, or None; may be an array.
      mask: prefix of the parameters with boolean leaves, or a function from parameters to one;
        leaves where it is False are held fixed. None trains all.
      decay: of the bias-corrected moving averages that smooth the variances of gradient and loss.
      seed: of the ±1 probes of the sketched statistics; the same seed gives the same run.
      differentiation: `"forward"`, or, for models without a forward-mode rule, `"reverse"`
        (reverse over reverse) or `"differences"`.
      axis_name: axis of `shard_map`, `pmap` or `vmap` over which the batch is split into equal
        parts, or None; gradients must be those of the whole batch.

    Returns:
      A transformation whose `update` needs `params` and `value_fn`, a function from parameters to
      the per-example losses of the current batch, shape (n,), or to a scalar (noise-free). Its
      updates are final: apply them as they are. `metrics(state)` reads its gauges.

    Raises:
      ValueError, TypeError: for unknown options, missing arguments, parameters that are not real
        floating-point arrays, losses of a wrong shape; each message says what to do.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from mekax.optimizers import meka
      >>> tx = meka()
      >>> params = {"w": jnp.array([1.0, -1.0])}
      >>> state = tx.init(params)
      >>> value_fn = lambda p: jnp.sum(jnp.array([[1.0, 10.0]]) * p["w"] ** 2, axis=1)
      >>> @jax.jit
      ... def step(params, state):
      ...     grads = jax.grad(lambda p: value_fn(p).mean())(params)
      ...     updates, state = tx.update(grads, state, params, value_fn=value_fn)
      ...     return optax.apply_updates(params, updates), state
      >>> for _ in range(100):
      ...     params, state = step(params, state)
      >>> bool(value_fn(params)[0] < 1e-6)
      True

    Source: Chen et al. (2020), arXiv 2011.04803.
    """
    filtering = gradient_filter(statistics, covariance, decay, seed, differentiation, axis_name)
    rule = step_rule(acquisition, calibrate, max_step_size, decay)

    def init_fn(params: PyTree) -> MekaState:
        return MekaState(filtering.init(params), rule.init(params))

    def update_fn(updates, state, params=None, *, value_fn=None, **extra_args):
        del extra_args
        value_fn = require_value_fn("meka", params, value_fn)
        require_gradient("meka", updates, params)
        filtered, stats, finite = filtering.update(updates, state.filter, params, value_fn)
        mean = filtered.belief.mean
        descent = jax.tree.map(jnp.negative, mean)
        direction_norm = norm(descent)
        direction = unit(descent, direction_norm)
        seen = directional(value_fn, params, direction, differentiation, axis_name)
        ahead = Ahead(
            slope=-dot(mean, direction),
            slope_variance=_gain_along(direction, filtered, decay) * seen.slope_variance,
            curvature=seen.curvature,
            curvature_variance=seen.curvature_variance,
            direction_norm=direction_norm,
        )
        behind = _look_behind(state.filter, params, stats)
        updates, _, new_rule, finite = rule.step(
            state.rule, behind, ahead, descent, params, state.filter.params, finite
        )
        refused = state.filter._replace(
            skipped=jnp.asarray(optax.safe_increment(state.filter.skipped))
        )
        return updates, MekaState(select_state(finite, filtered, refused), new_rule)

    return masked(optax.GradientTransformationExtraArgs(init_fn, update_fn), mask)


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
    isotropic P alone would say nothing about this direction.
    """
    noise = quadratic_form(debias(filtered.noise, decay, filtered.count), direction)
    variance = quadratic_form(filtered.belief.variance, direction)
    return jnp.where(noise > 0, variance / jnp.where(noise > 0, noise, 1), 1)
