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
    dot,
    finite_scalars,
    norm_near,
    safe_sqrt,
    unit,
    widen,
)
from ._state import ExpectedImprovementState

CONSISTENT = 0.1  # mismatch of slopes that rounding and reduced precision may leave
_SURPRISE = 3.0  # standard deviations of a slope that its noise does not explain
_EVERY_STEP_UNTIL = 20  # steps learned from, at each of which the curvature is measured


class Observation(NamedTuple):
    """What a batch shows; lines are per unit of length.

    Attributes:
      last: the line of the last step: its slope at this batch, and the curvature believed there.
      ahead: the line of the direction, measured or remembered.
      distance: length of the displacement made since the last finite batch.
      direction_norm: ‖d‖.
      params_norm: ‖θ‖ when the curvature was measured.
      has_value: whether the loss of this batch is known.
      measured: whether the curvature is this batch's own.
      mismatch: relative deviation of the gradient's slope from that of `value_fn`.
      finite: whether all that a step needs is finite.
      differentiation: index of the mode of differentiation.
    """

    last: LineBelief
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
    due, and remembered in between: at the first 20 steps, then at every `curvature_interval`-th,
    and wherever the last step shows that something is off.
    """
    step = state.step
    direction_norm = norm_near(updates, step.direction_norm)
    displacement = optax.tree.sub(widen(params), widen(state.params))
    distance = jnp.where(step.count > 0, norm_near(displacement, step.distance), 0.0)
    behind = jnp.where(distance > 0, over(dot(grad, displacement), distance), 0.0)
    ahead = -over(dot(grad, updates), direction_norm)

    due = (step.trust.count < _EVERY_STEP_UNTIL) | (
        jax.lax.rem(step.count, jnp.asarray(curvature_interval, step.count.dtype)) == 0
    )
    # A climb steeper than the descent that the step was chosen by, and than noise explains: what is
    # remembered of the curvature is wrong.
    noise = _SURPRISE * safe_sqrt(step.belief.slope_variance)
    due |= behind > jnp.abs(step.belief.slope) + noise
    due |= (step.gradient_mismatch > CONSISTENT) | (step.distance == 0) | (step.num_bad > 0)

    def measure() -> tuple[LineBelief, jax.Array, jax.Array, jax.Array]:
        direction = unit(updates, -direction_norm)
        seen, mode = observe_with_mode(value_fn, params, direction, differentiation, axis_name)
        mismatch = slope_mismatch(ahead, seen.slope, grad, params)
        params_norm = safe_sqrt(dot(params, params))
        return cast_like((bend(seen), mismatch, params_norm, jnp.int32(mode)), remembered)

    remembered = (step.belief, step.gradient_mismatch, step.params_norm, step.info.differentiation)
    seen, mismatch, params_norm, mode = branch(due, measure, lambda: remembered)
    known = seen.value if value is None else jnp.where(due, seen.value, jnp.mean(value))
    correction = slope_correction(mismatch, ahead, seen.slope)
    return Observation(
        last=step.belief._replace(
            value=known, value_variance=seen.value_variance, slope=behind * correction
        ),
        ahead=seen._replace(slope=ahead * correction),
        distance=distance,
        direction_norm=direction_norm,
        params_norm=params_norm,
        has_value=due | (value is not None),
        measured=due,
        mismatch=mismatch,
        finite=finite_scalars((ahead, behind, known)),
        differentiation=mode,
    )


def slope_mismatch(
    given: jax.Array, measured: jax.Array, grad: PyTree, params: PyTree
) -> jax.Array:
    """Relative deviation of the given gradient's slope from that of `value_fn`, in [0, 2].

    Relative to the gradient as well, so that the rounding of a slope near 0 is no mismatch.
    """
    rounding = coarsest(params) ** 0.5 * safe_sqrt(dot(grad, grad))
    largest = jnp.maximum(jnp.abs(measured), jnp.abs(given)) + rounding
    return over(jnp.abs(measured - given), largest)


def slope_correction(mismatch: jax.Array, given: jax.Array, measured: jax.Array) -> jax.Array:
    """Factor that makes of a slope of the given gradient, such as of a sum, one of `value_fn`."""
    ratio = jnp.clip(measured / jnp.where(given == 0, 1.0, given), 0.0, 100.0)
    return jnp.where(mismatch > CONSISTENT, ratio, 1.0)


def bend(seen: LineBelief) -> LineBelief:
    """Replace a second derivative that does not exist by that of a parabola.

    h = s²/(2 |y|),  which falls from the loss y with the slope s to a loss of 0
    """
    exists = finite_scalars((seen.curvature, seen.curvature_variance, seen.covariance))
    parabola = jnp.square(seen.slope) / (2 * jnp.abs(jnp.where(seen.value == 0, 1.0, seen.value)))

    def finite_or_zero(variance: jax.Array) -> jax.Array:
        return jnp.where(jnp.isfinite(variance), variance, 0.0)

    return seen._replace(
        value_variance=finite_or_zero(seen.value_variance),
        slope_variance=finite_or_zero(seen.slope_variance),
        curvature=jnp.where(exists, seen.curvature, parabola),
        curvature_variance=jnp.where(exists, seen.curvature_variance, 0.0),
        covariance=jnp.where(exists, seen.covariance, 0.0),
    )


def over(numerator: jax.Array, length: jax.Array) -> jax.Array:
    """Divide by a length; 0 by 0 is 0."""
    return numerator / jnp.where(length > 0, length, 1.0)


def branch(condition: jax.Array, if_true: Callable[[], PyTree], if_false: Callable[[], PyTree]):
    """`lax.cond`; where the condition is known, only what it asks for, and nothing is compiled."""
    if isinstance(condition, Tracer):
        return jax.lax.cond(condition, if_true, if_false)
    return if_true() if condition else if_false()


def cast_like(tree: PyTree, like: PyTree) -> PyTree:
    """Cast every leaf to the dtype of the matching leaf of `like`, and give it a strong type."""
    return jax.tree.map(lambda leaf, other: jnp.asarray(leaf, jnp.result_type(other)), tree, like)


def coarsest(params: PyTree) -> float:
    """The largest relative rounding error of the parameters' types."""
    return max(float(jnp.finfo(jnp.result_type(p)).eps) for p in jax.tree.leaves(params))
