from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..curvature import DirectionalStatistics, directional
from ..curvature._directional import batch_value
from ..curvature._mapped_axis import AxisName
from ..curvature._push_forward import Differentiation, check_differentiation
from ..curvature._trees import PyTree, cast_like, dot, widen, zeros_like
from ._acquisitions import Acquisition, AcquisitionName
from ._arguments import require_value_fn
from ._ema import debias, update_ema
from ._expected_improvement import ExpectedImprovementState, StepRule, step_along, step_rule
from ._finite import all_finite, select_state
from ._mask import masked

_MOMENTUM_DECAY = 0.9
_SECOND_MOMENT_DECAY = 0.999
_FIRST_LOOKS = 20  # lessons, until which the curvature is measured at every step,
_LOOK_EVERY = 10  # and then at every tenth: it changes more slowly than the slope
_EPSILON = 1e-8  # relative to the largest entry, so that scaling the loss changes nothing


class AdamekaState(NamedTuple):
    """State of `adameka`.

    Attributes:
      count: gradients averaged, int32.
      momentum: moving average of the gradient, uncorrected, float32 or wider.
      second_moment: moving average of its square, uncorrected, float32 or wider.
      rule: of the step rule.
    """

    count: jax.Array
    momentum: PyTree
    second_moment: PyTree
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

    β₁ = 0.9, β₂ = 0.999, m̂ and v̂ corrected for their start at 0, ε = 10⁻⁸ times the largest √v̂.
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
      A transformation used exactly as `meka`.

    Raises:
      ValueError, TypeError: as `meka`.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from mekax.optimizers import adameka
      >>> tx = adameka()
      >>> params = jnp.array([1.0, -1.0])
      >>> state = tx.init(params)
      >>> value_fn = lambda w: jnp.sum(jnp.array([1.0, 100.0]) * w**2)
      >>> for _ in range(200):
      ...     updates, state = tx.update(jax.grad(value_fn)(params), state, params,
      ...                                value_fn=value_fn)
      ...     params = optax.apply_updates(params, updates)
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
            rule=ExpectedImprovementState(zeros_like(params), state),
        )

    def update_fn(updates, state, params=None, *, value_fn=None, **extra_args):
        del extra_args
        value_fn = require_value_fn("adameka", params, value_fn)
        gradient = widen(updates)
        count = jnp.asarray(optax.safe_increment(state.count))
        momentum = update_ema(state.momentum, gradient, _MOMENTUM_DECAY)
        squares = jax.tree.map(jnp.square, gradient)
        second_moment = update_ema(state.second_moment, squares, _SECOND_MOMENT_DECAY)
        mean = debias(momentum, _MOMENTUM_DECAY, count)
        scale = jax.tree.map(jnp.sqrt, debias(second_moment, _SECOND_MOMENT_DECAY, count))
        largest = jnp.max(jnp.stack([jnp.max(x) for x in jax.tree.leaves(scale) if x.size]))
        floor = jnp.where(largest > 0, _EPSILON * largest, 1)
        scaled = jax.tree.map(lambda m, s: -m / (s + floor), mean, scale)

        def measure(line: PyTree) -> DirectionalStatistics:
            def afresh() -> DirectionalStatistics:
                return directional(value_fn, params, line, differentiation, axis_name)

            if look_every == 1 or not rule.calibrate:
                return afresh()
            last = state.rule.rule
            due = (last.lessons < _FIRST_LOOKS) | (last.count % look_every == 0)
            value, value_variance = batch_value(value_fn, params, axis_name)
            remembered = DirectionalStatistics(
                value,
                value_variance,
                dot(gradient, line),
                last.model.slope_variance,
                last.model.curvature,
                last.model.curvature_variance,
            )
            # A refused step may come of what is remembered.
            due |= last.length == 0
            return jax.lax.cond(due, lambda: cast_like(afresh(), remembered), lambda: remembered)

        def look(direction: PyTree, seen: DirectionalStatistics) -> DirectionalStatistics:
            # The curvature along the last step stands for that along the next: the direction
            # changes slowly, and a second pass did not train better.
            return seen._replace(slope=dot(gradient, direction))

        finite = all_finite((gradient, second_moment))
        updates, rule_state, finite = step_along(
            rule, state.rule, scaled, params, measure, look, finite
        )
        new = AdamekaState(count, momentum, second_moment, rule_state)
        refused = state._replace(rule=rule_state)
        return updates, select_state(finite, new, refused)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
