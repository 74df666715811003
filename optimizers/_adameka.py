from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..curvature import DirectionalStatistics, directional
from ..curvature._directional import batch_value
from ..curvature._mapped_axis import AxisName, as_local
from ..curvature._push_forward import Differentiation, check_differentiation
from ..curvature._trees import PyTree, cast_like, dot, size, widen, zeros_like
from ..curvature._validation import check_losses, per_example_losses
from ._acquisitions import Acquisition, AcquisitionName
from ._arguments import require_gradient, require_shape, require_value_fn
from ._ema import debias, update_ema
from ._expected_improvement import ExpectedImprovementState, StepRule, step_along, step_rule
from ._mask import masked

_MOMENTUM_DECAY = 0.9
_SECOND_MOMENT_DECAY = 0.999
_FIRST_LOOKS = 20  # lessons, until which the curvature is measured at every step,
_LOOK_EVERY = 10  # and then at every tenth: it changes more slowly than the slope
_EPSILON = 1e-8  # relative to the root mean square entry, so that scaling the loss changes nothing


class AdamekaState(NamedTuple):
    """State of `adameka`.

    Attributes:
      count: gradients averaged, int32.
      momentum: moving average of the gradient, uncorrected, float32 or wider.
      second_moment: moving average of its square, uncorrected, float32 or wider.
      square: moving average of ‖g‖², the sum of the entries of `second_moment`.
      rule: of the step rule.
    """

    count: jax.Array
    momentum: PyTree
    second_moment: PyTree
    square: jax.Array
    rule: ExpectedImprovementState


def adameka(
    acquisition: AcquisitionName | Acquisition = "expected_improvement",
    calibrate: bool = True,
    max_step_size: jax.typing.ArrayLike | None = None,
    mask: Any = None,
    decay: float = 0.99,
    differentiation: Differentiation = "forward",
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Self-tuning descent on the direction of Adam: the best default for neural networks.

        m ← β₁ m + (1 − β₁) g,    v ← β₂ v + (1 − β₂) g²,    d = −m̂ / (√v̂ + ε)
        α = argmax over (0, τ] of E[max(−Δ(α), 0)],    θ ← θ + α d

    β₁ = 0.9, β₂ = 0.999, m̂ and v̂ corrected for their start at 0, ε = 10⁻⁸ √(mean v̂).
    The length of the step along d is found as by `scale_by_expected_improvement`. Every step shows
    the slope along the one before, for the price of a dot product; the curvature along it changes
    slowly and takes a second-order forward-mode pass, which is made at the first 20 steps and
    at every tenth from then on.

    The publication's direction, the filtered gradient m / (√(m² + P) + ε), gives coordinates that
    never see a gradient the same weight as all others, and its transport removes what momentum
    accelerates: on networks the plain average of gradients trains faster. `meka` has the filter.

    Args:
      acquisition: see `meka`.
      calibrate: see `meka`.
      max_step_size: see `meka`; α multiplies the scaled direction.
      mask: see `meka`.
      decay: see `meka`.
      differentiation: see `meka`.
      axis_name: see `meka`.

    Returns:
      A transformation used exactly as `meka`. Its `update` takes one more argument, which changes
      nothing but what a step costs: `losses`, what `value_fn` returns at `params`, from
      `losses_and_grad`. Without it they are computed again, unless the compiler shares them.

    Raises:
      ValueError, TypeError: as `meka`; for losses that `value_fn` would not return.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from mekax.optimizers import adameka, losses_and_grad
      >>> tx = adameka()
      >>> params = jnp.array([1.0, -1.0])
      >>> state = tx.init(params)
      >>> value_fn = lambda w: jnp.sum(jnp.array([1.0, 100.0]) * w**2)
      >>> @jax.jit
      ... def step(params, state):
      ...     losses, grads = losses_and_grad(value_fn)(params)
      ...     updates, state = tx.update(grads, state, params, value_fn=value_fn, losses=losses)
      ...     return optax.apply_updates(params, updates), state
      >>> for _ in range(200):
      ...     params, state = step(params, state)
      >>> bool(value_fn(params) < 1e-3)
      True

    Source: Chen et al. (2020), arXiv 2011.04803, for AdaMEKA; Kingma & Ba (2015) for the scaling.
    """
    rule = step_rule(acquisition, calibrate, max_step_size, decay)
    return masked(along_momentum(rule, differentiation, axis_name), mask)


def along_momentum(
    rule: StepRule,
    differentiation: Differentiation = "forward",
    axis_name: AxisName | None = None,
    look_every: int = _LOOK_EVERY,
) -> optax.GradientTransformationExtraArgs:
    """`adameka` with any step rule, measuring the curvature at any interval."""
    check_differentiation(differentiation)

    def init_fn(params: PyTree) -> AdamekaState:
        state = rule.init(params)
        return AdamekaState(
            count=jnp.zeros((), jnp.int32),
            momentum=zeros_like(params, wide=True),
            second_moment=zeros_like(params, wide=True),
            square=jnp.zeros((), state.length.dtype),
            rule=ExpectedImprovementState(zeros_like(params), state),
        )

    def update_fn(updates, state, params=None, *, value_fn=None, losses=None, **extra_args):
        del extra_args
        value_fn = require_value_fn("adameka", params, value_fn)
        require_gradient("adameka", updates, params)
        gradient = widen(updates)
        square = dot(gradient, gradient)
        if losses is None:
            losses = per_example_losses(value_fn)(as_local(params, axis_name))
        else:
            losses = check_losses(losses, "losses to be")
            value_fn = require_shape(value_fn, losses)
        value, value_variance = batch_value(losses, axis_name)
        # Known before the averages are touched, so that they are written once, where they are.
        finite = jnp.isfinite(square) & jnp.isfinite(value)
        state = _average(state, gradient, square, finite)

        def measure(line: Callable[[], PyTree]) -> DirectionalStatistics:
            def afresh() -> DirectionalStatistics:
                return directional(value_fn, params, line(), differentiation, axis_name)

            if look_every == 1 or not rule.calibrate:
                return afresh()
            last = state.rule.rule
            due = (last.lessons < _FIRST_LOOKS) | (last.count % look_every == 0)
            remembered = DirectionalStatistics(
                value,
                value_variance,
                last.model.slope,
                last.model.slope_variance,
                last.model.curvature,
                last.model.curvature_variance,
            )
            # A refused step may come of what is remembered.
            due |= last.length == 0
            return jax.lax.cond(due, lambda: cast_like(afresh(), remembered), lambda: remembered)

        updates, rule_state, _ = step_along(
            rule, state.rule, _descent(state), params, measure, finite, gradient
        )
        return updates, state._replace(rule=rule_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _average(
    state: AdamekaState, gradient: PyTree, square: jax.Array, finite: jax.Array
) -> AdamekaState:
    """Advance the averages of the gradient and its square, unless it is not finite."""

    def update(average: jax.Array, value: jax.Array, decay: float) -> jax.Array:
        return jnp.where(finite, update_ema(average, value, decay), average)

    def update_square(average: jax.Array, g: jax.Array) -> jax.Array:
        # Not of g², which would be shared with its sum and so be written to memory.
        decay = _SECOND_MOMENT_DECAY
        return jnp.where(finite, decay * average + ((1 - decay) * g) * g, average)

    return state._replace(
        count=jnp.where(finite, jnp.asarray(optax.safe_increment(state.count)), state.count),
        momentum=jax.tree.map(lambda m, g: update(m, g, _MOMENTUM_DECAY), state.momentum, gradient),
        second_moment=jax.tree.map(update_square, state.second_moment, gradient),
        square=update(state.square, square, _SECOND_MOMENT_DECAY),
    )


def _descent(state: AdamekaState) -> PyTree:
    """Build Adam's direction −m̂ / (√v̂ + ε)."""
    mean = debias(state.momentum, _MOMENTUM_DECAY, state.count)
    variance = debias(state.second_moment, _SECOND_MOMENT_DECAY, state.count)
    square = debias(state.square, _SECOND_MOMENT_DECAY, state.count)
    floor = _EPSILON * jnp.sqrt(square / size(state.momentum))
    floor = jnp.where(floor > 0, floor, 1)
    return jax.tree.map(lambda m, v: -m / (jnp.sqrt(v) + floor), mean, variance)
