"""What a batch shows of the step that led to it, and of the line that lies ahead."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from ..curvature import AxisName, Differentiation, LineBelief, ValueFn
from ..curvature._line import observe_with_mode
from ..curvature._tree import (
    PyTree,
    coarsest,
    dot,
    finite_scalars,
    norm,
    norm_near,
    safe_sqrt,
    unit,
    widen,
)
from ._state import ExpectedImprovementState

MAX_MISMATCH = 0.1  # of slopes: what rounding and reduced precision may leave
_SURPRISE = 3.0  # standard deviations of a slope that its noise does not explain
_EVERY_STEP_UNTIL = 20  # steps learned from, at each of which the curvature is measured


class Observation(NamedTuple):
    """What a batch shows; lines are per unit of length.

    Attributes:
      behind: the line of the step made, seen from its end: this batch's loss and slope; the
        curvature as believed before the step, or, in `meka`, as this batch has it.
      ahead: the line of the direction, measured or remembered.
      distance: length of the displacement made since the last finite batch, whoever made it.
      direction_norm: ‖d‖.
      params_norm: ‖θ‖ when the curvature was measured.
      has_value: whether the loss of this batch is known.
      measured: whether the curvature is this batch's own.
      mismatch: relative deviation of the gradient's slope from that of `value_fn`.
      finite: whether loss and slopes are finite.
      differentiation: index of the mode of differentiation.
    """

    behind: LineBelief
    ahead: LineBelief
    distance: jax.Array
    direction_norm: jax.Array
    params_norm: jax.Array
    has_value: jax.Array | bool
    measured: jax.Array | bool
    mismatch: jax.Array
    finite: jax.Array
    differentiation: jax.Array


def observe_step(
    value_fn: ValueFn,
    params: PyTree,
    updates: PyTree,
    grad: PyTree,
    value: jax.Array | None,
    state: ExpectedImprovementState,
    *,
    curvature_interval: jax.typing.ArrayLike,
    differentiation: Differentiation,
    axis_name: AxisName | None,
) -> Observation:
    """Look back along the displacement and ahead along d = −updates.

    Slopes are products with the gradient. The rest is measured by a pass of its own where that is
    due, and remembered in between: at every step until the trust region has learned from 20, then
    at every `curvature_interval`-th, and wherever something is off: the loss climbs after the step,
    the gradient is not that of `value_fn`, the last batch was bad, or no step was made.
    """
    old = state.step
    direction_norm = norm_near(updates, old.direction_norm)
    displacement = optax.tree.sub(widen(params), widen(state.params))
    distance = jnp.where(old.count > 0, norm_near(displacement, old.distance), 0.0)
    slope_behind = jnp.where(distance > 0, dot(grad, unit(displacement, distance)), 0.0)
    slope_ahead = -dot(grad, unit(updates, direction_norm))

    due = (old.trust.count < _EVERY_STEP_UNTIL) | (
        jax.lax.rem(old.count, jnp.asarray(curvature_interval, old.count.dtype)) == 0
    )
    due |= climbs(slope_behind, old.belief)
    due |= (old.gradient_mismatch > MAX_MISMATCH) | (old.distance == 0) | (old.num_bad > 0)

    # Between measurements the new direction is taken to have the curvature and the variances of the
    # one that was measured last; only its slope is new.
    remembered = (old.belief, old.gradient_mismatch, old.params_norm, old.info.differentiation)

    def measure() -> tuple[LineBelief, jax.Array, jax.Array, jax.Array]:
        direction = unit(optax.tree.scale(-1, widen(updates)), direction_norm)
        line, mode = observe_with_mode(value_fn, params, direction, differentiation, axis_name)
        mismatch = slope_mismatch(slope_ahead, line.slope, grad, params)
        params_norm = safe_sqrt(dot(params, params))
        line = fill_missing_curvature(line)
        return cast_like((line, mismatch, params_norm, jnp.int32(mode)), remembered)

    line, mismatch, params_norm, mode = branch(due, measure, lambda: remembered)
    value_seen = line.value if value is None else jnp.where(due, line.value, jnp.mean(value))
    # 1 unless the line was measured: after a mismatch it is, at every step.
    correction = slope_correction(mismatch, slope_ahead, line.slope)
    return Observation(
        # Where nothing was measured, `has_value` and `measured` keep value and noise unused.
        behind=old.belief._replace(
            value=value_seen,
            value_variance=line.value_variance,
            slope=slope_behind * correction,
        ),
        ahead=line._replace(slope=slope_ahead * correction),
        distance=distance,
        direction_norm=direction_norm,
        params_norm=params_norm,
        has_value=due | (value is not None),
        measured=due,
        mismatch=mismatch,
        finite=finite_scalars((slope_ahead, slope_behind, value_seen)),
        differentiation=mode,
    )


def climbs(slope: jax.Array, belief: LineBelief) -> jax.Array:
    """Whether the line of a step rises more steeply after it than it fell before, noise apart.

    Then what is remembered of the curvature may be wrong, and the step may have done harm.
    """
    return slope > jnp.abs(belief.slope) + _SURPRISE * safe_sqrt(belief.slope_variance)


def slope_mismatch(
    given: jax.Array, measured: jax.Array, grad: PyTree, params: PyTree
) -> jax.Array:
    """Relative deviation of the given gradient's slope from that of `value_fn`, in [0, 2].

    Relative to the gradient as well, so that the rounding of a slope near 0 is no mismatch.
    """
    rounding = coarsest(params) ** 0.5 * norm(grad)
    largest = jnp.maximum(jnp.abs(measured), jnp.abs(given)) + rounding
    return divide(jnp.abs(measured - given), largest)


def slope_correction(mismatch: jax.Array, given: jax.Array, measured: jax.Array) -> jax.Array:
    """Factor that makes of a slope of the given gradient, such as of a sum, one of `value_fn`."""
    ratio = jnp.clip(measured / jnp.where(given == 0, 1.0, given), 0.0, 100.0)
    return jnp.where(mismatch > MAX_MISMATCH, ratio, 1.0)


def fill_missing_curvature(line: LineBelief) -> LineBelief:
    """Replace a second derivative that does not exist by that of a parabola.

    h = s²/(2 |y|),  which falls from a loss y > 0 with the slope s to a loss of 0

    The same where its variance or its covariance with the slope does not exist.
    """
    exists = finite_scalars((line.curvature, line.curvature_variance, line.covariance))
    parabola = jnp.square(line.slope) / (2 * jnp.abs(jnp.where(line.value == 0, 1.0, line.value)))

    def finite_or_zero(variance: jax.Array) -> jax.Array:
        return jnp.where(jnp.isfinite(variance), variance, 0.0)

    return line._replace(
        value_variance=finite_or_zero(line.value_variance),
        slope_variance=finite_or_zero(line.slope_variance),
        curvature=jnp.where(exists, line.curvature, parabola),
        curvature_variance=jnp.where(exists, line.curvature_variance, 0.0),
        covariance=jnp.where(exists, line.covariance, 0.0),
    )


def divide(numerator: jax.Array, length: jax.Array) -> jax.Array:
    """Divide by a length; by 0, which has no part in it, by 1."""
    return numerator / jnp.where(length > 0, length, 1.0)


def branch(condition: jax.Array, if_true: Callable[[], PyTree], if_false: Callable[[], PyTree]):
    """`lax.cond`; where the condition is known, only what it asks for, and nothing is compiled."""
    if isinstance(condition, Tracer):
        return jax.lax.cond(condition, if_true, if_false)
    return if_true() if condition else if_false()


def cast_like(tree: PyTree, like: PyTree) -> PyTree:
    """Cast every leaf to the dtype of the matching leaf of `like`, and give it a strong type."""
    return jax.tree.map(lambda leaf, other: jnp.asarray(leaf, jnp.result_type(other)), tree, like)
