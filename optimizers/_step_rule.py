"""The step rule on scalars: what was seen along the last step, what lies ahead, how far to go.

Slopes are along unit directions, curvatures are v·Bv with ‖v‖ = 1, and what is chosen is a length
L = α‖d‖, so that the model of the loss does not depend on the scale of the direction.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..curvature import DirectionalStatistics, ValueBelief, correct_value, predict_value
from ._acquisitions import Acquisition
from ._ema import debias, update_ema
from ._line_model import LineModel
from ._maximize import maximize_on_interval

_CALIBRATION_DECAY = 0.95
_CAUTION_DECAY = 0.8
_REACH_GROWTH = 0.1
_LOG_LIMIT = 60.0  # of the trust, either way
_TOLERANCE = 0.1  # relative deviation of the length moved up to which a step counts as ours


def logarithmic_clock(lessons: jax.Array) -> jax.Array:
    """How far the k-th lesson moves the logarithm of the trust, at most: 2/(k + 10).

    As fast as it must be at first. In the end, where the loss no longer falls, the slope after a
    step is half its curvature whatever its length, the fraction in `choose_length` is 0.4/1.5, and
    the trust falls like k^(−2·0.4/1.5) = k^−0.53: between k^−½ and k^−1, as for Robbins and Monro.
    """
    return 2 / (lessons + 10)


def newest_hundredth(lessons: jax.Array) -> jax.Array:
    """Weight of a lesson, after k others, in the averages of slope and curvature: 100/(k + 100).

    One batch sees mostly noise where steps are short: its slope after the step has a mean of the
    order of ‖δ‖² and a deviation of the order of ‖δ‖. The fraction of such numbers vanishes with
    the step, and the trust would fall like 1/log k. A fixed part of all lessons sees the mean.
    """
    return 100 / (lessons + 100)


class Constants(NamedTuple):
    """Constants of the rule, the same for every problem; others are for ablations.

    Attributes:
      lesson_rate: how far the k-th lesson moves the trust.
      memory: weight of a lesson in the averages that it is taken from, by those before.
      overshoot: slope after the step that is aimed at, as a part of the curvature's share.
      first_step: in Newton steps; curvature measured at the start is no good guide far from it.
      reach: Newton steps that none may exceed; the first steps 1, and 1/10 more by each lesson.
      curvature_decay: of the running magnitude of the curvature.
      part: of the trust interval that is used, by the number of steps measured.
    """

    lesson_rate: Callable[[jax.Array], jax.Array] = logarithmic_clock
    memory: Callable[[jax.Array], jax.Array | float] = newest_hundredth
    overshoot: float = 0.1
    first_step: float = 0.3
    reach: float = 3.0
    curvature_decay: float = 0.9
    part: Callable[[jax.Array], jax.Array | float] = lambda count: 1.0


DEFAULT = Constants()


class StepRuleState(NamedTuple):
    """State of the step rule: scalars only, float32 or wider, and counters.

    Attributes:
      count: steps measured, int32.
      lessons: steps from which the trust was adapted, less those that others changed, int32.
      skipped: steps refused because something measured was not finite, int32.
      value: N(u, s), filtered loss.
      value_noise: moving average of r, uncorrected.
      curvature: moving average of |v·Bv|, uncorrected.
      slope_after: g·δ after steps, averaged over the last lessons.
      curvature_after: δ·Bδ of these, averaged alike.
      log_trust: logarithm of the trust τ, the step size at which the trust interval ends.
      caution: halvings of the trust interval that refused steps have left, fading with good ones.
      trusted: the length at which the last trust interval ended by τ.
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
    slope_after: jax.Array
    curvature_after: jax.Array
    log_trust: jax.Array
    caution: jax.Array
    trusted: jax.Array
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
        # Compiled, the two divisions may become one by a product that is 0.
        deviation = jnp.where(spread > 0, jnp.sqrt(spread) / curvature / norm, 0)
        return {
            "step_size": self.step_size,
            "step_size_std": _finite(deviation),
            "slope": model.slope,
            "slope_std": jnp.sqrt(model.slope_variance),
            "curvature": model.curvature,
            "curvature_std": jnp.sqrt(model.curvature_variance),
            "direction_norm": self.direction_norm,
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
        slope_after=zero(),
        curvature_after=zero(),
        log_trust=zero(),
        caution=zero(),
        trusted=zero(),
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


def refuse_step(state: StepRuleState, constants: Constants = DEFAULT) -> StepRuleState:
    """What is left of a step at whose end something measured was not finite.

    The trust interval is halved, and recovers within ten good steps: mostly it is the batch that is
    at fault. In case it was the step, it counts as the worst lesson there is.
    """
    # Only a step that was made can have been too long; a bad batch says nothing about it.
    made = state.length > 0
    lessons = jnp.where(made, jnp.maximum(state.lessons, 1), state.lessons)
    moved = state.log_trust - constants.lesson_rate(lessons)
    return state._replace(
        skipped=jnp.asarray(optax.safe_increment(state.skipped)),
        lessons=lessons,
        log_trust=jnp.where(made, moved, state.log_trust),
        caution=jnp.where(made, state.caution + 1, state.caution),
        # No step was chosen: neither form of it may show the one before. Products, because a
        # donated buffer is only reused where it is read.
        length=0 * state.length,
        step_size=0 * state.step_size,
    )


def choose_length(
    state: StepRuleState,
    behind: Behind,
    ahead: Ahead,
    limit: jax.Array,
    acquisition: Acquisition,
    calibrate: bool,
    decay: float,
    constants: Constants = DEFAULT,
    lost: jax.Array | bool = False,
) -> StepRuleState:
    """Update the value filter and the trust, and choose how far to go.

    The trust interval ends at τ, which closes the loop on the slope after the step. One fresh batch
    measures that slope without bias, g·δ, and the curvature δ·Bδ with it. At the minimum along the
    line the slope is 0; where it is half the curvature, the step gained nothing. The aim is a
    little beyond the minimum, because going to that of every line is short-sighted:

        log τ ← log τ − η_k (s − 0.1 max(c, 0)) / (|s| + |c|),    s = ⟨g·δ⟩,  c = ⟨δ·Bδ⟩

    with η_k = 2/(k + 10), k counting such lessons, and averages ⟨·⟩ over the newest hundredth of
    them, in which a lesson has the weight 100/(k + 99). The fraction lies in [−1.1, 1], so no batch
    can throw τ far, and errors of slope and curvature are corrected together: over-promised
    descent, stale curvature, a loss that is not quadratic. Where all descent is noise, τ falls as a
    power of k: the rate knows no time scale of its own, so short and long trainings anneal alike.

    τ is a step size, in units of the direction as given: a direction that carries momentum needs
    steps that change slowly, and its own length says how sure it is.

    A step of which rounding leaves nothing cannot be looked back on; it counts as the lesson that
    asks for the longest step.

    Until there is a lesson, steps are 0.3 Newton steps a/ĥ long, so that whoever makes the first
    ones, the rule takes over with a fresh view. None exceeds min(1 + k/10, 3) of them, with the
    slope's upper end max(a, 0) + √p. ĥ is the larger of the newest curvature and its running
    magnitude: never negative, never suddenly small.

    Args:
      state: of the previous step.
      behind: measurements along the displacement.
      ahead: beliefs along the new unit direction.
      limit: largest length allowed.
      acquisition: utility of a length, given a `LineModel`.
      calibrate: whether the trust is adapted; otherwise the interval ends at 3 Newton steps a/ĥ.
      decay: of the moving average of the value noise r.
      constants: of the rule.
      lost: whether the last step was so short that rounding left nothing of it.

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
    ours = (behind.distance > 0) & (
        jnp.abs(behind.distance - state.length) <= _TOLERANCE * state.length
    )
    if not calibrate:
        ours = jnp.zeros_like(ours)
    # A step that something else kept short says nothing for a longer interval.
    kept_short = state.length < (1 - _TOLERANCE) * state.trusted
    weight = jnp.where(ours, constants.memory(state.lessons), 0)
    slope_after = state.slope_after + weight * (seen.slope - state.slope_after)
    curvature_after = state.curvature_after + weight * (seen.curvature - state.curvature_after)
    scale = jnp.abs(slope_after) + jnp.abs(curvature_after)
    surplus = slope_after - constants.overshoot * jnp.maximum(curvature_after, 0)
    surplus = surplus / jnp.where(scale > 0, scale, 1)
    surplus = jnp.where(kept_short, jnp.maximum(surplus, 0), surplus)
    # What others do takes back a lesson, so that steps that are ours by chance come to nothing.
    foreign = (behind.distance > 0) & ~ours
    lessons = jnp.where(foreign, jnp.maximum(state.lessons - 1, 0), state.lessons)
    lessons = jnp.where(ours, jnp.asarray(optax.safe_increment(state.lessons)), lessons)
    moved = state.log_trust - constants.lesson_rate(lessons) * surplus
    log_trust = jnp.where(ours, moved, state.log_trust)
    # Where no step is seen there are no lessons, and the next would be lost as well.
    lessons = jnp.where(lost, jnp.maximum(lessons, 1), lessons)
    longer = state.log_trust + constants.lesson_rate(lessons)
    log_trust = jnp.where(lost, longer, log_trust)
    caution = _CAUTION_DECAY * state.caution
    claimed = -behind.claimed_slope
    present = (seen.curvature - seen.slope) / jnp.where(claimed > 0, claimed, 1)
    calibration = jnp.where(
        ours & (claimed > 0),
        update_ema(state.calibration, jnp.clip(present, -10, 10), _CALIBRATION_DECAY),
        state.calibration,
    )

    # The model ahead and its trust interval.
    curvature = update_ema(state.curvature, jnp.abs(ahead.curvature), constants.curvature_decay)
    bound = jnp.maximum(ahead.curvature, debias(curvature, constants.curvature_decay, count))

    def newton(slope: jax.Array) -> jax.Array:
        length = slope / jnp.where(bound > 0, bound, 1)
        return jnp.where(slope > 0, jnp.where(bound > 0, length, jnp.inf), 0)

    tiny = jnp.finfo(noise.dtype).tiny
    norm = jnp.maximum(ahead.direction_norm, tiny)
    if calibrate:
        start = jnp.minimum(constants.first_step * newton(ahead.slope), limit)
        log_start = jnp.log(jnp.maximum(start, tiny) / norm)
        log_trust = jnp.where(lessons > 0, log_trust, log_start)
        log_trust = jnp.clip(log_trust, -_LOG_LIMIT, _LOG_LIMIT)
        trusted = constants.part(count) * jnp.exp(log_trust) * norm
        trusted = jnp.where((lessons > 0) | (start > 0), trusted, 0)
        # Where the batch sees no descent, what its noise allows for still is one.
        upper_slope = jnp.maximum(ahead.slope, 0) + jnp.sqrt(ahead.slope_variance)
        farthest = jnp.minimum(1 + _REACH_GROWTH * lessons, constants.reach) * newton(upper_slope)
    else:
        trusted = farthest = constants.reach * newton(ahead.slope)
    reach = jnp.minimum(jnp.minimum(trusted * jnp.exp2(-caution), farthest), limit)
    trusted = jnp.minimum(trusted, jnp.finfo(trusted.dtype).max)
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
        slope_after=slope_after,
        curvature_after=curvature_after,
        log_trust=log_trust,
        caution=caution,
        trusted=trusted,
        calibration=calibration,
        length=length,
        step_size=length / norm,
        model=model,
        direction_norm=ahead.direction_norm,
        predicted_change=model.change(length),
        realized_change=jnp.where(first, 0, value.mean - state.value.mean),
    )
