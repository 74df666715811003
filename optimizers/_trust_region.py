"""How far a line is to be believed, and what is learned from what became of the last step.

A trust region is an object with `init`, `update`, `reject` and `radius`, handed over as
`trust_region=`; `adaptive_trust_region` is the default, `newton_trust_region` the published rule.
"""

import enum
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..curvature import LineBelief

_LOG_LIMIT = 60.0  # of the radius in units of the direction, either way
_CURVATURE_WEIGHT = 0.1  # of the newest in the running magnitude of the curvature
_BACKOFF_DECAY = 0.8
_NEWTON_RATIO_GROWTH = 0.1
_EDGE = 0.5  # slope over curvature after a step, beyond which steps along a line grow
_UPHILL = 0.3  # a slope that rises counts as a descent of this part of it
_LOG_RETURN = 0.35  # by which a return to the average lowers log τ
_LOG_UNRESOLVED = math.log(2.0)  # by which a step lost to rounding raises it


class Outcome(enum.IntEnum):
    """What became of the step before, or what is done in place of a step.

    | name       | what the next batch found                                                    |
    |------------|------------------------------------------------------------------------------|
    | NONE       | no step: none was chosen, as in a return, or it was not applied              |
    | TAKEN      | the step that was chosen, as long as the radius                              |
    | TRUNCATED  | the step that was chosen, which something kept shorter than the radius       |
    | EXTERNAL   | a step that somebody else made                                               |
    | UNRESOLVED | nothing: rounding of the parameters swallowed the step                       |
    | SKIPPED    | something that is not finite: the batch is left out                          |
    | REJECTED   | the same, batch after batch: the step is taken back                          |
    | RETURNED   | a loss far above that of the average, or finite there alone: back to it      |
    """

    NONE = 0
    TAKEN = 1
    TRUNCATED = 2
    EXTERNAL = 3
    UNRESOLVED = 4
    SKIPPED = 5
    REJECTED = 6
    RETURNED = 7


class Evidence(NamedTuple):
    """What the averages say, by now; scalars.

    Attributes:
      difference: D, the loss at shorter averages less that at a long one.
      excess: E, the loss at the iterate less that of an average over the last tenth.
      risen: whether the loss at the iterate lies so far above that of the average that the
        steps have done harm.
      changed: whether the loss at the average has itself risen: the problem is another one.
    """

    difference: jax.Array
    excess: jax.Array
    risen: jax.Array
    changed: jax.Array


class TrustRegion(NamedTuple):
    """Functions that say how far a line is to be believed.

    Attributes:
      init: `dtype -> state`, a NamedTuple of finite scalars with the fields `count`, the steps that
        it has learned from (below 20 the curvature is measured at every step), and `radius`, where
        the last interval ended by what was learned.
      update: `(state, outcome, seen, belief, evidence, direction_norm, limit) -> state` learns from
        the last step. `outcome` is what became of it; `seen` is its line, α = 1 being the step;
        `belief` is the line that lies ahead, per unit of length; `evidence` is an `Evidence`;
        `direction_norm` is ‖d‖, and no step may be longer than `limit`.
      reject: `state -> state` after a step that was taken back.
      radius: `state -> length` at which the interval ends.
      looks_back: whether it asks for evidence; otherwise no averages are kept, and it gets None.
    """

    init: Callable[[Any], Any]
    update: Callable[..., Any]
    reject: Callable[[Any], Any]
    radius: Callable[[Any], jax.Array]
    looks_back: bool = False


def newton_length(slope: jax.Array, curvature: jax.Array) -> jax.Array:
    """Distance −s/h to the minimum of a line; the largest there is if it does not bend upward.

    It is 0 where nothing falls.
    """
    largest = float(jnp.finfo(slope.dtype).max)
    bent = curvature > 0
    length = jnp.minimum(-slope / jnp.where(bent, curvature, 1.0), largest)
    return jnp.where(slope < 0, jnp.where(bent, length, largest), 0.0)


class NewtonState(NamedTuple):
    """State of `newton_trust_region`, which learns nothing.

    Attributes:
      count: always 0, int32: the curvature is measured at every step.
      radius: where the last interval ended.
      curvature_magnitude: moving average of |h|.
      steps: values in it, int32.
    """

    count: jax.Array
    radius: jax.Array
    curvature_magnitude: jax.Array
    steps: jax.Array


def newton_trust_region(max_newton_ratio: float = 3.0) -> TrustRegion:
    """Believe a line up to so many Newton steps −s/h, whatever steps turn out to do.

    Args:
      max_newton_ratio: radius in Newton steps.

    Returns:
      A `TrustRegion`.

    Example:
      >>> from mekax.optimizers import meka, newton_trust_region
      >>> tx = meka("probability_of_improvement", trust_region=newton_trust_region())

    Source: Chen et al. (2020), arXiv 2011.04803, section 4.
    """

    def init(dtype: Any) -> NewtonState:
        # Every leaf is an array of its own: shared ones cannot be donated.
        count, steps = (jnp.zeros((), jnp.int32) for _ in range(2))
        radius, magnitude = (jnp.zeros((), dtype) for _ in range(2))
        return NewtonState(count, radius, magnitude, steps)

    def update(state, outcome, seen, belief, evidence, direction_norm, limit):
        del outcome, seen, evidence, direction_norm, limit
        steps = state.steps + 1
        magnitude, bound = _curvature_bound(state.curvature_magnitude, belief, steps)
        radius = max_newton_ratio * newton_length(belief.slope, bound)
        radius = jnp.minimum(radius, float(jnp.finfo(radius.dtype).max))
        return NewtonState(state.count, radius, magnitude, steps)

    return TrustRegion(init, update, lambda state: state, lambda state: state.radius)


class AdaptiveState(NamedTuple):
    """State of `adaptive_trust_region`.

    Attributes:
      count: steps learned from, less those that others made, int32.
      steps: lines seen, int32.
      log_step_size: logarithm of the radius τ, a step size in units of the direction as given.
      slope: s of the steps made, averaged.
      curvature: h of the steps made, averaged.
      curvature_magnitude: moving average of |h| of the lines ahead.
      backoff: halvings of the radius that rejected steps have left, fading with good ones.
      radius: length at which the last interval ended by τ.
      newton_limit: length at which it ended by the curvature.
    """

    count: jax.Array
    steps: jax.Array
    log_step_size: jax.Array
    slope: jax.Array
    curvature: jax.Array
    curvature_magnitude: jax.Array
    backoff: jax.Array
    radius: jax.Array
    newton_limit: jax.Array


def adaptive_trust_region(
    least_ratio: float = -0.1,
    most_ratio: float = 1.0,
    adaptation_gain: Callable[[jax.Array], jax.Array | float] = lambda count: 5 / (count + 50),
    averaging_weight: Callable[[jax.Array], jax.Array | float] = lambda count: 50 / (count + 50),
    initial_newton_ratio: float = 0.4,
    max_newton_ratio: float = 3.0,
) -> TrustRegion:
    """Hold the slope after the step where averages of the iterates say that it should be.

        log τ ← log τ − η_k (⟨s⟩ − ρ ⟨h⟩⁺)/(|⟨s⟩| + |⟨h⟩|),    η_k = 5/(k + 50)

    s = g·δ is what the batch after a step δ finds along it, h = δ·Bδ its curvature, k counts such
    steps and ⟨·⟩ averages them with the weight 50/(k + 50). A step up to the minimum of its line
    leaves s = 0; one of twice that length, beyond which steps grow from one to the next, leaves
    s = h/2. Where the loss no longer falls, s = h/2 whatever the steps are.

    D, the loss at shorter averages of the iterates less that at a long one, and E, the loss at the
    iterate less that of an average, decide the aim ρ:

    | D   | E   | what that says                                     | aim                         |
    |-----|-----|----------------------------------------------------|-----------------------------|
    | < 0 | < 0 | the long average lags behind, the iterate is ahead | grow, over the edge: 1      |
    | < 0 | > 0 | there is progress, and noise that averages remove  | hold the edge: ½            |
    | > 0 |     | noise rules even in averages                       | shrink, to a minimum: −0.1  |

    Until the first comparison both are 0, which counts half either way.

    τ is a step size, in units of the direction as given: a direction that carries momentum needs
    steps that change slowly, and its own length says how sure it is. Until a step was learned from,
    τ is 0.4 Newton steps −s/h of the line ahead. No step exceeds min(1 + k/10, 3) of them, with the
    lower end s − √p of the slope, where s > 0 counts as −0.3 s. There, h is the larger of the
    newest curvature and its running magnitude: never negative, never suddenly small.

    A step that something kept short is no evidence for a longer one. One that is lost to rounding
    doubles τ. One that is taken back shortens the next one to 57 %, an effect that fades in about
    ten steps. A return to the average shortens τ by three tenths. Where the problem has changed,
    all that was learned is forgotten.

    Args:
      least_ratio: where to aim when noise rules, as the slope after the step over its curvature.
      most_ratio: the same when progress rules and the iterate is ahead of its averages.
      adaptation_gain: η, how far the k-th step moves log τ, at most.
      averaging_weight: of the k-th step in the averages of slope and curvature.
      initial_newton_ratio: first radius in Newton steps: the curvature measured at the start is no
        good guide far from it.
      max_newton_ratio: Newton steps that no step exceeds.

    Returns:
      A `TrustRegion`.

    Example:
      >>> from mekax.optimizers import adameka, adaptive_trust_region
      >>> tx = adameka(trust_region=adaptive_trust_region(most_ratio=0.7))

    Source: Robbins & Monro (1951) for the gain; blackjax and Hoffman & Gelman (2014), arXiv
    1111.4246, section 3.2, for a step size by stochastic approximation of its logarithm; Cohen et
    al. (2021), arXiv 2103.00065, for training at the edge of stability.
    """

    def init(dtype: Any) -> AdaptiveState:
        # Every leaf is an array of its own: shared ones cannot be donated.
        integers = [jnp.zeros((), jnp.int32) for _ in range(2)]
        return AdaptiveState(*integers, *(jnp.zeros((), dtype) for _ in range(7)))

    def update(
        state: AdaptiveState,
        outcome: jax.Array,
        seen: LineBelief,
        belief: LineBelief,
        evidence: Evidence,
        direction_norm: jax.Array,
        limit: jax.Array,
    ) -> AdaptiveState:
        fresh = init(state.radius.dtype)
        state = jax.tree.map(lambda new, old: jnp.where(evidence.changed, new, old), fresh, state)
        # The step that led to where the problem has changed says nothing of the new one.
        outcome = jnp.where(evidence.changed, Outcome.NONE, outcome)
        taken = (outcome == Outcome.TAKEN) | (outcome == Outcome.TRUNCATED)
        unresolved = outcome == Outcome.UNRESOLVED
        weight = jnp.where(taken, averaging_weight(state.count), 0.0)
        slope = state.slope + weight * (seen.slope - state.slope)
        curvature = state.curvature + weight * (seen.curvature - state.curvature)
        progress = _falls(evidence.difference)
        ahead = progress * _falls(evidence.excess)
        target = least_ratio + (_EDGE - least_ratio) * progress + (most_ratio - _EDGE) * ahead
        error = slope - target * jnp.maximum(curvature, 0.0)
        scale = jnp.abs(slope) + jnp.abs(curvature)
        error = error / jnp.where(scale > 0, scale, 1.0)
        error = jnp.where(outcome == Outcome.TRUNCATED, jnp.maximum(error, 0.0), error)

        # A step of somebody else lowers the count, to cancel those that had our length by chance.
        others = outcome == Outcome.EXTERNAL
        # At least 1 where rounding swallowed the step, so that τ is not set anew.
        count = jnp.maximum(state.count + jnp.where(taken, 1, 0) - others, unresolved)
        adapted = state.log_step_size - adaptation_gain(count) * error
        log_step_size = jnp.where(taken, adapted, state.log_step_size)
        log_step_size += jnp.where(unresolved, _LOG_UNRESOLVED, 0.0)
        log_step_size -= jnp.where(evidence.risen, _LOG_RETURN, 0.0)

        steps = state.steps + 1
        magnitude, bound = _curvature_bound(state.curvature_magnitude, belief, steps)
        start = jnp.minimum(initial_newton_ratio * newton_length(belief.slope, bound), limit)
        length = direction_norm + _tiny(start)
        log_step_size = jnp.where(
            count > 0, log_step_size, jnp.log((start + _tiny(start)) / length)
        )
        log_step_size = jnp.clip(log_step_size, -_LOG_LIMIT, _LOG_LIMIT)
        largest = float(jnp.finfo(start.dtype).max)
        radius = jnp.minimum(jnp.exp(log_step_size) * length, largest)

        # Where the batch sees no descent, what its noise allows for still is one, and a direction
        # that carries momentum leads on: this limit is never 0.
        descent = jnp.maximum(-belief.slope, _UPHILL * belief.slope)
        lower = -descent - jnp.sqrt(belief.slope_variance + _tiny(start))
        newton_ratio = jnp.minimum(1 + _NEWTON_RATIO_GROWTH * count, max_newton_ratio)
        return AdaptiveState(
            count=count,
            steps=steps,
            log_step_size=log_step_size,
            slope=slope,
            curvature=curvature,
            curvature_magnitude=magnitude,
            backoff=_BACKOFF_DECAY * state.backoff,
            radius=jnp.where((count > 0) | (start > 0), radius, 0.0),
            newton_limit=jnp.minimum(newton_ratio * newton_length(lower, bound), largest),
        )

    def reject(state: AdaptiveState) -> AdaptiveState:
        return state._replace(backoff=state.backoff + 1)

    def radius(state: AdaptiveState) -> jax.Array:
        return jnp.minimum(state.radius * jnp.exp2(-state.backoff), state.newton_limit)

    return TrustRegion(init, update, reject, radius, looks_back=True)


def _falls(change: jax.Array) -> jax.Array:
    """1 of a change below 0, 0 of one above, ½ of none."""
    return 0.5 * (1 - jnp.sign(change))


def _curvature_bound(
    magnitude: jax.Array, belief: LineBelief, steps: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Running magnitude of the curvature, and the larger of that and the newest curvature."""
    weight = jnp.maximum(_CURVATURE_WEIGHT, 1 / steps)  # the mean of all, until there are many
    magnitude = magnitude + weight * (jnp.abs(belief.curvature) - magnitude)
    return magnitude, jnp.maximum(belief.curvature, magnitude)


def _tiny(x: jax.Array) -> float:
    return float(jnp.finfo(x.dtype).tiny)
