from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..curvature import (
    AxisName,
    BatchStatistics,
    Covariance,
    Differentiation,
    LineBelief,
    ValueFn,
    quadratic_form,
)
from ..curvature._line import observe_with_mode
from ..curvature._tree import PyTree, coarsest, dot, norm, safe_sqrt, unit
from ._acquisition import Acquisition, AcquisitionName
from ._arguments import (
    check_cap,
    require_consistency,
    require_gradient,
    require_value_fn,
    resolve_trust_region,
)
from ._expected_improvement import (
    CURVATURE_INTERVAL,
    move,
    observe_horizon,
    step_chooser,
    step_limit,
)
from ._horizon import HorizonState, init_horizon
from ._kalman_filter import (
    KalmanFilterState,
    Statistics,
    check_filter_options,
    displacement_from,
    init_kalman_filter,
    kalman_filter_step,
    select_filter,
)
from ._mask import masked
from ._observation import (
    MAX_MISMATCH,
    Observation,
    fill_missing_curvature,
    slope_mismatch,
)
from ._state import StepState, init_step
from ._trust_region import TrustRegion, adaptive_trust_region


class MekaState(NamedTuple):
    """State of `meka`: gradient filter, averages of the iterates, and step rule."""

    filter: KalmanFilterState
    horizon: HorizonState | tuple[()]
    step: StepState


def meka(
    acquisition: AcquisitionName | Acquisition | None = "expected_improvement",
    statistics: Statistics = "sketched",
    covariance: Covariance = "scalar",
    trust_region: TrustRegion | None = None,
    max_step_size: jax.typing.ArrayLike | None = None,
    mask: Any = None,
    decay: float = 0.99,
    seed: int = 0,
    differentiation: Differentiation = "auto",
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Self-tuning descent: Kalman-filtered gradient, step size by expected improvement.

        d = −m,    α = argmax over (0, τ] of E[max(−Δ(α), 0)],    θ ← θ + α d

    The mean m of the gradient filter (`scale_by_kalman_filter`) is the direction, the step rule
    (`scale_by_expected_improvement`) its length; they share beliefs and measurements, so the
    slope is the filter's, d·m, and its variance the filter's share K·Var_i(g_i·d)/n of the
    batch's. There is no learning rate. `acquisition="probability_of_improvement"` with
    `trust_region=newton_trust_region()` is the published rule.

    Args:
      acquisition: `"expected_improvement"`, `"probability_of_improvement"`,
        `"expected_decrease"`, or a callable such as `improvement_threshold(0.9)`.
      statistics: `"sketched"` for any `value_fn`; `"exact"` for one made by
        `mekax.curvature.per_example`.
      covariance: of the filter, `"scalar"`, `"per_leaf"` or `"diagonal"`.
      trust_region: how far a line is believed; None is `adaptive_trust_region()`.
      max_step_size: cap on α/‖d‖, or None; may be an array.
      mask: prefix of the parameters with boolean leaves, or a function from parameters to one;
        leaves where it is False are held fixed. None trains all.
      decay: of the bias-corrected moving averages that smooth the variances of gradient and loss.
      seed: of the ±1 probes of the sketched statistics; the same seed gives the same run.
      differentiation: `"auto"`: forward mode, or, for models without a forward-mode rule,
        differences of gradients; `"forward"`, `"reverse"` (reverse over reverse), `"differences"`.
      axis_name: axis of `shard_map`, `pmap` or `vmap` over which the batch is split into equal
        parts, or None; gradients must be those of the whole batch.

    Returns:
      A transformation whose `update` needs `params` and `value_fn`, a function from parameters to
      the per-example losses of the current batch, shape (n,), or to a scalar (shows no noise). Its
      updates are final: apply them as they are. With `grad=` that gradient is filtered in place of
      the incoming updates. `metrics(state)` reads what it knows.

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
    check_filter_options(statistics, covariance, decay, differentiation)
    check_cap(max_step_size)
    trust_region = resolve_trust_region(trust_region, adaptive_trust_region)
    choose = step_chooser(acquisition, trust_region)
    options = (differentiation, axis_name)

    def init_fn(params: PyTree) -> MekaState:
        return MekaState(
            init_kalman_filter(params, covariance),
            init_horizon(params) if trust_region.looks_back else (),
            init_step(params, trust_region),
        )

    def update_fn(updates, state, params=None, *, value_fn=None, grad=None, **extra_args):
        del extra_args
        value_fn = require_value_fn("meka", params, value_fn)
        require_gradient("meka", updates, params)
        if grad is not None:
            require_gradient("meka", grad, params)
            updates = grad
        filtered, stats, finite = kalman_filter_step(
            state.filter,
            updates,
            params,
            value_fn,
            statistics=statistics,
            covariance=covariance,
            decay=decay,
            seed=seed,
            differentiation=differentiation,
            axis_name=axis_name,
        )
        observation = _observe(
            value_fn, params, updates, state.filter, filtered, stats, finite, decay, options
        )
        mean = filtered.belief.mean
        horizon, evidence = observe_horizon(
            value_fn, params, state.horizon, state.step, observation, CURVATURE_INTERVAL, axis_name
        )
        limit = step_limit(params, mean, observation, max_step_size)
        step = choose(state.step, observation, evidence, limit, coarsest(params))
        require_consistency("meka", step.gradient_mismatch, MAX_MISMATCH)
        last_good = state.filter.params
        updates, _, horizon = move(step, mean, params, last_good, horizon, evidence)
        filtered = select_filter(step.num_bad == 0, filtered, state.filter)
        return updates, MekaState(filtered, horizon, step)

    return masked(optax.GradientTransformationExtraArgs(init_fn, update_fn), mask)


def _observe(
    value_fn: ValueFn,
    params: PyTree,
    gradient: PyTree,
    before: KalmanFilterState,
    filtered: KalmanFilterState,
    stats: BatchStatistics,
    finite: jax.Array,
    decay: jax.typing.ArrayLike,
    options: tuple[Differentiation, AxisName | None],
) -> Observation:
    """The line behind, out of what the filter measured, and the line ahead along its mean."""
    displacement = displacement_from(before.params, params, before.count == 0)
    distance = norm(displacement)
    behind = LineBelief(
        value=stats.value,
        value_variance=stats.value_variance,
        slope=stats.slope,
        slope_variance=stats.slope_variance,
        curvature=dot(displacement, stats.product),
        curvature_variance=quadratic_form(stats.product_variance, displacement),
        covariance=jnp.zeros_like(distance),
    ).rescaled(1 / jnp.where(distance > 0, distance, 1.0))

    mean = filtered.belief.mean
    direction_norm = norm(mean)
    direction = unit(mean, -direction_norm)
    seen, mode = observe_with_mode(value_fn, params, direction, *options)
    given = dot(gradient, direction)
    mismatch = slope_mismatch(given, seen.slope, gradient, params)
    # A gradient of something else is no help to a filter that knows how the loss bends.
    slope = jnp.where(mismatch > MAX_MISMATCH, seen.slope, dot(mean, direction))
    gain = _gain_along(direction, filtered, decay)
    ahead = fill_missing_curvature(seen._replace(slope=slope))
    return Observation(
        behind=fill_missing_curvature(behind),
        ahead=ahead._replace(
            slope_variance=gain * ahead.slope_variance, covariance=gain * ahead.covariance
        ),
        distance=distance,
        direction_norm=direction_norm,
        params_norm=safe_sqrt(dot(params, params)),
        has_value=jnp.array(True),
        measured=jnp.array(True),
        mismatch=mismatch,
        finite=finite & jnp.isfinite(slope) & jnp.isfinite(seen.slope),
        differentiation=jnp.int32(mode),
    )


def _gain_along(
    direction: PyTree, filtered: KalmanFilterState, decay: jax.typing.ArrayLike
) -> jax.Array:
    """Ratio of the filter's variance to the batch's along a direction, d·Pd / d·Σd.

    A corrected scalar variance is P = K Σ, so this is the gain; measured along d it turns the
    exact variance of the batch's slope into that of the filter's: d·Pd ≈ K·Var_i(g_i·d)/n. The
    isotropic P alone would say nothing about this direction.
    """
    noise = optax.tree.bias_correction(filtered.noise, decay, filtered.count)
    noise = quadratic_form(noise, direction)
    variance = quadratic_form(filtered.belief.variance, direction)
    return jnp.where(noise > 0, variance / jnp.where(noise > 0, noise, 1), 1)
