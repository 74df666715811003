"""How far a line is to be believed, and what is learned from what became of the last step.

A trust region is an object with `init`, `update`, `reject` and `radius`, handed over as
`trust_region=`; `adaptive_trust_region` is the default, `newton_trust_region` the published rule.
"""

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..curvature import LineBelief

_LOG_LIMIT = 60.0  # of the radius in units of the direction, either way
_CURVATURE_WEIGHT = 0.1  # of the newest in the running magnitude of the curvature
_BACKOFF_DECAY = 0.8
_NEWTON_RATIO_GROWTH = 0.1


class Outcome(enum.IntEnum):
    """What became of the last step.

    | name       | what the next batch found                                                    |
    |------------|------------------------------------------------------------------------------|
    | NONE       | no step: the first batch, one after a rejection, or one not applied          |
    | TAKEN      | the step that was chosen, up to the radius                                   |
    | TRUNCATED  | the step that was chosen, which something kept shorter than the radius       |
    | EXTERNAL   | a step that somebody else made                                               |
    | UNRESOLVED | nothing: rounding of the parameters swallowed the step                       |
    | SKIPPED    | something that is not finite: the batch is left out                          |
    | REJECTED   | the same, batch after batch: the step is taken back                          |
    """

    NONE = 0
    TAKEN = 1
    TRUNCATED = 2
    EXTERNAL = 3
    UNRESOLVED = 4
    SKIPPED = 5
    REJECTED = 6


class TrustRegion(NamedTuple):
    """Functions that say how far a line is to be believed.

    Attributes:
      init: `dtype -> state`, a NamedTuple of scalars with the fields `count`, the steps that it has
        learned from (below 20 the curvature is measured at every step), and `radius`, where the
        last interval ended by what was learned.
      update: `(state, outcome, observation, belief, direction_norm, limit) -> state` learns from
        the last step. `observation` is the line of that step, α = 1 being the step; `belief` is the
        line that lies ahead, per unit of length.
      reject: `state -> state` after a step that was taken back.
      radius: `state -> length` at which the interval ends.
    """

    init: Callable[[Any], Any]
    update: Callable[..., Any]
    reject: Callable[[Any], Any]
    radius: Callable[[Any], jax.Array]


def newton_length(slope: jax.Array, curvature: jax.Array) -> jax.Array:
    """Distance −s/h to the minimum of a line; the largest there is where nothing bends.

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

    def update(state, outcome, observation, belief, direction_norm, limit):
        del outcome, observation, direction_norm, limit
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
      log_radius: logarithm of the radius τ, a step size in units of the direction as given.
      slope: s of the steps made, averaged.
      curvature: h of the steps made, averaged.
      curvature_magnitude: moving average of |h| of the lines ahead.
      backoff: halvings of the radius that rejected steps have left, fading with good ones.
      radius: length at which the last interval ended by τ.
      newton_limit: length at which it ended by the curvature.
    """

    count: jax.Array
    steps: jax.Array
    log_radius: jax.Array
    slope: jax.Array
    curvature: jax.Array
    curvature_magnitude: jax.Array
    backoff: jax.Array
    radius: jax.Array
    newton_limit: jax.Array


def adaptive_trust_region(
    target_ratio: float = 0.1,
    adaptation_gain: Callable[[jax.Array], jax.Array | float] = lambda count: 2 / (count + 10),
    averaging_weight: Callable[[jax.Array], jax.Array | float] = lambda count: 100 / (count + 100),
    initial_newton_ratio: float = 0.3,
    max_newton_ratio: float = 3.0,
) -> TrustRegion:
    """Close the loop on the slope that a fresh batch finds after the step.

        log τ ← log τ − η_k (⟨s⟩ − ρ ⟨h⟩⁺)/(|⟨s⟩| + |⟨h⟩|),    η_k = 2/(k + 10),   ρ = 0.1

    s = g·δ is what the batch after a step δ finds along it, h = δ·Bδ its curvature, k counts such
    steps and ⟨·⟩ averages them with the weight 100/(k + 100). A step up to the minimum of its line
    leaves s = 0; the aim is a little beyond it. As the averages cover a part of all steps, the
    fraction stays informative where one batch sees mostly noise, and τ falls like a power of k.

    τ is a step size, in units of the direction as given: a direction that carries momentum needs
    steps that change slowly, and its own length says how sure it is. Until a step was learned from,
    τ is 0.3 Newton steps −s/h of the line ahead. No step exceeds min(1 + k/10, 3) of them, with the
    lower end min(s, 0) − √p of the slope. There, h is the larger of the newest curvature and its
    running magnitude: never negative, never suddenly small.

    A step that something kept short says nothing for a longer one. One of which rounding leaves
    nothing asks for the longest there is. One that is taken back halves the interval for about ten
    steps.

    Args:
      target_ratio: ρ, the slope after the step that is aimed at, as a part of its curvature.
      adaptation_gain: η, how far the k-th step moves log τ, at most.
      averaging_weight: of the k-th step in the averages of slope and curvature.
      initial_newton_ratio: first radius in Newton steps: the curvature measured at the start is no
        good guide far from it.
      max_newton_ratio: Newton steps that no step exceeds.

    Returns:
      A `TrustRegion`.

    Example:
      >>> from mekax.optimizers import adameka, adaptive_trust_region
      >>> tx = adameka(trust_region=adaptive_trust_region(target_ratio=0.2))

    Source: Robbins & Monro (1951) for the gain; blackjax and Hoffman & Gelman (2014), arXiv
    1111.4246, section 3.2, for a step size by stochastic approximation of its logarithm.
    """

    def init(dtype: Any) -> AdaptiveState:
        # Every leaf is an array of its own: shared ones cannot be donated.
        integers = [jnp.zeros((), jnp.int32) for _ in range(2)]
        return AdaptiveState(*integers, *(jnp.zeros((), dtype) for _ in range(7)))

    def update(
        state: AdaptiveState,
        outcome: jax.Array,
        observation: LineBelief,
        belief: LineBelief,
        direction_norm: jax.Array,
        limit: jax.Array,
    ) -> AdaptiveState:
        taken = (outcome == Outcome.TAKEN) | (outcome == Outcome.TRUNCATED)
        unresolved = outcome == Outcome.UNRESOLVED
        weight = jnp.where(taken, averaging_weight(state.count), 0.0)
        slope = state.slope + weight * (observation.slope - state.slope)
        curvature = state.curvature + weight * (observation.curvature - state.curvature)
        error = slope - target_ratio * jnp.maximum(curvature, 0.0)
        scale = jnp.abs(slope) + jnp.abs(curvature)
        error = error / jnp.where(scale > 0, scale, 1.0)
        error = jnp.where(outcome == Outcome.TRUNCATED, jnp.maximum(error, 0.0), error)
        error = jnp.where(unresolved, -1.0, error)

        # A step of somebody else lowers the count, to cancel those that had our length by chance.
        others = outcome == Outcome.EXTERNAL
        # At least 1 where rounding swallowed the step, so that τ is not set anew.
        count = jnp.maximum(state.count + jnp.where(taken, 1, 0) - others, unresolved)
        adapted = state.log_radius - adaptation_gain(count) * error
        log_radius = jnp.where(taken | unresolved, adapted, state.log_radius)

        steps = state.steps + 1
        magnitude, bound = _curvature_bound(state.curvature_magnitude, belief, steps)
        start = jnp.minimum(initial_newton_ratio * newton_length(belief.slope, bound), limit)
        length = direction_norm + _tiny(start)
        log_radius = jnp.where(count > 0, log_radius, jnp.log((start + _tiny(start)) / length))
        log_radius = jnp.clip(log_radius, -_LOG_LIMIT, _LOG_LIMIT)
        largest = float(jnp.finfo(start.dtype).max)
        radius = jnp.minimum(jnp.exp(log_radius) * length, largest)

        # Where the batch sees no descent, what its noise allows for still is one.
        lower = jnp.minimum(belief.slope, 0.0) - jnp.sqrt(belief.slope_variance + _tiny(start))
        newton_ratio = jnp.minimum(1 + _NEWTON_RATIO_GROWTH * count, max_newton_ratio)
        return AdaptiveState(
            count=count,
            steps=steps,
            log_radius=log_radius,
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

    return TrustRegion(init, update, reject, radius)


def _curvature_bound(
    magnitude: jax.Array, belief: LineBelief, steps: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Running magnitude of the curvature, and the larger of that and the newest curvature."""
    weight = jnp.maximum(_CURVATURE_WEIGHT, 1 / steps)  # the mean of all, until there are many
    magnitude = magnitude + weight * (jnp.abs(belief.curvature) - magnitude)
    return magnitude, jnp.maximum(belief.curvature, magnitude)


def _tiny(x: jax.Array) -> float:
    return float(jnp.finfo(x.dtype).tiny)
