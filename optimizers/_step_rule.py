"""The step rule on scalars: what was seen along the last step, what lies ahead, how far to go.

Everything is per unit *length*: slopes are along unit directions, curvatures are v·Bv with
‖v‖ = 1, and the rule returns a length L. So the scale of the direction, however preconditioned,
never enters, and quantities of successive steps can be compared and averaged.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..curvature import DirectionalStatistics, ValueBelief, correct_value, predict_value
from ._acquisitions import Acquisition
from ._ema import debias, update_ema
from ._line_model import LineModel
from ._maximize import maximize_on_interval

_CURVATURE_DECAY = 0.9
_CALIBRATION_DECAY = 0.95
_TRUST_RATE = 0.05
_TRUST_START = 2.0  # the first lessons count as 2/(their number + 1) until that is below the rate
_TRUST_LIMITS = (0.01, 3.0)
_TOLERANCE = 0.1  # relative deviation of the length moved up to which a step counts as ours


class StepRuleState(NamedTuple):
    """State of the step rule: scalars only, float32 or wider, and counters.

    Attributes:
      count: steps measured, int32.
      lessons: steps from which the trust was adapted, int32.
      skipped: steps refused because something measured was not finite, int32.
      value: N(u, s), filtered loss.
      value_noise: moving average of r, uncorrected.
      curvature: moving average of |v·Bv|, uncorrected.
      log_trust: logarithm of the trust c, the end of the interval in Newton steps.
      calibration: moving average of the part of the claimed slope that was there, from 1.
      length: L, chosen at the last step.
      step_size: α = L/‖d‖, the same in units of the direction as given.
      model: the `LineModel` of the last step, per unit length.
      direction_norm: ‖d‖ of the last step.
      predicted_change: mean of the change of the loss predicted for the last step.
      realized_change: change of the filtered loss over the step before.
    """

    count: jax.Array
    lessons: jax.Array
    skipped: jax.Array
    value: ValueBelief
    value_noise: jax.Array
    curvature: jax.Array
    log_trust: jax.Array
    calibration: jax.Array
    length: jax.Array
    step_size: jax.Array
    model: LineModel
    direction_norm: jax.Array
    predicted_change: jax.Array
    realized_change: jax.Array

    def metrics(self) -> dict[str, jax.Array]:
        """Scalars for `mekax.optimizers.metrics`, where they are explained."""
        model, tiny = self.model, jnp.finfo(self.length.dtype).tiny
        norm = jnp.maximum(self.direction_norm, tiny)
        curvature = jnp.maximum(jnp.abs(model.curvature), tiny)
        spread = model.slope_variance + jnp.square(self.length) * model.curvature_variance
        return {
            "step_size": self.step_size,
            "step_size_std": _finite(jnp.sqrt(spread) / curvature / norm),
            "slope": model.slope,
            "slope_std": jnp.sqrt(model.slope_variance),
            "curvature": model.curvature,
            "curvature_std": jnp.sqrt(model.curvature_variance),
            "snr": _finite(jnp.square(model.slope) / jnp.maximum(model.slope_variance, tiny)),
            "trust": jnp.exp(self.log_trust),
            "calibration": self.calibration,
            "loss_mean": self.value.mean,
            "loss_std": jnp.sqrt(self.value.variance),
            "predicted_change": self.predicted_change,
            "realized_change": self.realized_change,
            "lessons": self.lessons,
            "skipped": self.skipped,
        }


def _finite(x: jax.Array) -> jax.Array:
    return jnp.minimum(x, jnp.finfo(x.dtype).max)


def init_step_rule(dtype: jnp.dtype) -> StepRuleState:
    """Build the state before the first step, in the given dtype."""

    # Every leaf is an array of its own: shared ones cannot be donated.
    def zero() -> jax.Array:
        return jnp.zeros((), dtype)

    def counter() -> jax.Array:
        return jnp.zeros((), jnp.int32)

    return StepRuleState(
        count=counter(),
        lessons=counter(),
        skipped=counter(),
        value=ValueBelief(zero(), zero()),
        value_noise=zero(),
        curvature=zero(),
        log_trust=zero(),
        calibration=zero() + 1,
        length=zero(),
        step_size=zero(),
        model=LineModel(zero(), zero(), zero(), zero(), zero()),
        direction_norm=zero(),
        predicted_change=zero(),
        realized_change=zero(),
    )


class Behind(NamedTuple):
    """What the current batch says about the displacement δ made since the last step.

    Attributes:
      distance: ‖δ‖.
      claimed_slope: m·δ, the directional derivative believed before δ was made.
      claimed_slope_variance: δ·Pδ.
      seen: value, slope g·δ and curvature δ·Bδ of the batch at the new point.
    """

    distance: jax.Array
    claimed_slope: jax.Array
    claimed_slope_variance: jax.Array
    seen: DirectionalStatistics


class Ahead(NamedTuple):
    """What is believed along the unit direction v that lies ahead.

    Attributes:
      slope: −m·v, expected descent per unit length.
      slope_variance: v·Pv.
      curvature: v·Bv.
      curvature_variance: v·Qv.
      direction_norm: ‖d‖, the length of the direction as given.
    """

    slope: jax.Array
    slope_variance: jax.Array
    curvature: jax.Array
    curvature_variance: jax.Array
    direction_norm: jax.Array


def choose_length(
    state: StepRuleState,
    behind: Behind,
    ahead: Ahead,
    limit: jax.Array,
    acquisition: Acquisition,
    calibrate: jax.typing.ArrayLike,
    decay: float,
) -> StepRuleState:
    """Update the value filter and the trust, and choose how far to go.

    The trust interval ends at c Newton lengths, L_tr = c·a/ĥ, where ĥ is the larger of the
    curvature measured now and its running magnitude: never negative, never suddenly small. The
    trust closes the loop on the slope after the step, which one fresh batch measures without
    bias: at a line minimum it is 0, and

        log c ← log c − η_k clip(s, −1, 1),    s = (g·δ) / |m·δ|,    η_k = max(2/(k + 2), 0.05),

    where m·δ is the slope that was claimed before the step and k counts such lessons. Errors of
    slope and curvature are corrected together: over-promised descent, stale curvature, a loss
    that is not quadratic.

    Args:
      state: of the previous step.
      behind: measurements along the displacement.
      ahead: beliefs along the new unit direction.
      limit: largest length allowed.
      acquisition: utility of a length, given a `LineModel`.
      calibrate: whether the trust c is adapted; otherwise it stays at its upper limit.
      decay: of the moving average of the value noise r.

    Returns:
      The new state, whose `length` is the choice.
    """
    first = state.count == 0
    count = jnp.asarray(optax.safe_increment(state.count))
    seen = behind.seen

    # The loss filter.
    value_noise = update_ema(state.value_noise, seen.value_variance, decay)
    noise = debias(value_noise, decay, count)
    predicted = predict_value(
        state.value,
        behind.claimed_slope + 0.5 * seen.curvature,
        behind.claimed_slope_variance + 0.25 * seen.curvature_variance,
    )
    filtered, _ = correct_value(predicted, seen.value, noise)
    value = ValueBelief(
        jnp.where(first, seen.value, filtered.mean), jnp.where(first, noise, filtered.variance)
    )

    # The closed loop on the slope after the step. Steps that were not ours teach nothing.
    claimed = -behind.claimed_slope
    ours = (
        ~first
        & (claimed > 0)
        & (jnp.abs(behind.distance - state.length) <= _TOLERANCE * state.length)
    )
    scale = jnp.where(claimed > 0, claimed, 1)
    surplus = jnp.clip(seen.slope / scale, -1, 1)
    low, high = (jnp.log(jnp.asarray(x, noise.dtype)) for x in _TRUST_LIMITS)
    lessons = jnp.where(ours, jnp.asarray(optax.safe_increment(state.lessons)), state.lessons)
    rate = jnp.maximum(_TRUST_RATE, _TRUST_START / (lessons + 2))
    log_trust = jnp.where(ours, state.log_trust - rate * surplus, state.log_trust)
    log_trust = jnp.where(calibrate, jnp.clip(log_trust, low, high), high)
    present = jnp.clip((seen.curvature - seen.slope) / scale, -10, 10)
    calibration = jnp.where(
        ours, update_ema(state.calibration, present, _CALIBRATION_DECAY), state.calibration
    )

    # The model ahead and its trust interval.
    curvature = update_ema(state.curvature, jnp.abs(ahead.curvature), _CURVATURE_DECAY)
    bound = jnp.maximum(ahead.curvature, debias(curvature, _CURVATURE_DECAY, count))
    newton = ahead.slope / jnp.where(bound > 0, bound, 1)
    newton = jnp.where(bound > 0, newton, jnp.inf)
    reach = jnp.minimum(jnp.exp(log_trust) * newton, limit)
    reach = jnp.where(ahead.slope > 0, reach, 0)
    model = LineModel(
        slope=ahead.slope,
        curvature=ahead.curvature,
        slope_variance=ahead.slope_variance,
        curvature_variance=ahead.curvature_variance,
        value_variance=value.variance,
    )
    length = maximize_on_interval(lambda x: acquisition(model, x), reach)
    return StepRuleState(
        count=count,
        lessons=lessons,
        skipped=state.skipped,
        value=value,
        value_noise=value_noise,
        curvature=curvature,
        log_trust=log_trust,
        calibration=calibration,
        length=length,
        step_size=length / jnp.maximum(ahead.direction_norm, jnp.finfo(length.dtype).tiny),
        model=model,
        direction_norm=ahead.direction_norm,
        predicted_change=model.change(length),
        realized_change=jnp.where(first, 0, value.mean - state.value.mean),
    )
