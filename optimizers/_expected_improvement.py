from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..curvature import ValueFn, directional
from ..curvature._mapped_axis import AxisName
from ..curvature._push_forward import Differentiation, check_differentiation
from ..curvature._trees import PyTree, cast_like, widen, zeros_like
from ..curvature._validation import check_params
from ._acquisitions import Acquisition, AcquisitionName, resolve_acquisition
from ._arguments import require_value_fn
from ._direction import norm, unit
from ._finite import all_finite, select, select_state
from ._kalman_filter import displacement_from
from ._step_rule import Ahead, Behind, StepRuleState, choose_length, init_step_rule


class ExpectedImprovementState(NamedTuple):
    """State of `scale_by_expected_improvement`.

    Attributes:
      params: parameters at the last good step.
      rule: state of the step rule.
    """

    params: PyTree
    rule: StepRuleState


class StepRule(NamedTuple):
    """The rule as functions shared by the transformations that end in a step."""

    init: Any
    step: Any


def step_rule(
    acquisition: AcquisitionName | Acquisition,
    calibrate: bool,
    max_step_size: jax.typing.ArrayLike | None,
    decay: float,
) -> StepRule:
    """Build the step rule; `step` turns a direction and beliefs about it into updates."""
    utility = resolve_acquisition(acquisition)

    def init(params: PyTree) -> StepRuleState:
        check_params(params)
        dtype = jnp.result_type(jnp.float32, *(jnp.result_type(p) for p in jax.tree.leaves(params)))
        return init_step_rule(dtype)

    def step(
        state: StepRuleState,
        behind: Behind,
        ahead: Ahead,
        direction: PyTree,
        params: PyTree,
        previous: PyTree,
        finite: jax.Array,
    ) -> tuple[PyTree, StepRuleState, jax.Array]:
        """Choose the length and return `(updates, state, finite)`.

        `direction` is the unit vector v. Where anything measured is not finite the updates lead
        back to `previous`, the last point at which all was well, and the trust is halved.
        """
        # No step reaches farther than the parameters are long: a bound that only a vanishing
        # curvature meets, and that keeps a linear loss from sending them to infinity.
        length = norm(params)
        limit = jnp.where(length > 0, length, 1)
        if max_step_size is not None:
            limit = jnp.minimum(limit, max_step_size * ahead.direction_norm)
        new = choose_length(state, behind, ahead, limit, utility, calibrate, decay)
        finite = finite & all_finite((behind, ahead, new))
        halved = state._replace(
            skipped=jnp.asarray(optax.safe_increment(state.skipped)),
            log_trust=state.log_trust - jnp.log(2.0),
            # No step was chosen: neither form of it may show the one before. Products, because a
            # donated buffer is only reused where it is read.
            length=0 * state.length,
            step_size=0 * state.step_size,
        )
        new = select_state(finite, new, halved)
        forward = jax.tree.map(lambda v: new.length * v, direction)
        back = jax.tree.map(jnp.subtract, widen(previous), widen(params))
        back = select(state.count > 0, back, jax.tree.map(jnp.zeros_like, back))
        return cast_like(select(finite, forward, back), params), new, finite

    return StepRule(init, step)


def scale_by_expected_improvement(
    acquisition: AcquisitionName | Acquisition = "expected_improvement",
    calibrate: bool = True,
    max_step_size: jax.typing.ArrayLike | None = None,
    decay: float = 0.99,
    differentiation: Differentiation = "forward",
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Choose the size of the step along any direction: put it last in a chain, in place of a rate.

    The change of the loss along d = −updates is modeled as

        Δ(α) ~ N(−α a + ½ α² h,  2s + α² p + ¼ α⁴ q)

    with slope, curvature and their variances over the examples measured by one nested
    forward-mode pass along d, and the step is the maximizer of the acquisition over a trust
    interval. The interval adapts to the slope that the next, fresh batch shows along the step
    (`_step_rule.py`), so that directions that promise too much are stepped along less.

    Where a measurement is not finite, the parameters return to the last good point, the trust is
    halved and the step is counted in `skipped`.

    Args:
      acquisition: `"expected_improvement"`, `"probability_of_improvement"` (the published
        choice), `"expected_decrease"`, or a callable such as `improvement_threshold(0.9)`.
      calibrate: adapt the trust interval to what steps turn out to do. Without it the rule is
        the published one, bounded by 3 Newton steps.
      max_step_size: cap on α, or None; may be an array.
      decay: of the bias-corrected moving average that smooths the noise r of the loss.
      differentiation: `"forward"`, or, for models without a forward-mode rule, `"reverse"`
        (reverse over reverse) or `"differences"`.
      axis_name: axis of `shard_map`, `pmap` or `vmap` over which the batch is split into equal
        parts, or None.

    Returns:
      A transformation whose `update` needs `params` and `value_fn`, a function from parameters to
      the per-example losses of the current batch, shape (n,), or to a scalar (noise-free). Its
      updates are final: apply them as they are.

    Raises:
      ValueError, TypeError: for unknown options, missing arguments, parameters that are not real
        floating-point arrays, losses of a wrong shape; each message says what to do.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from mekax.optimizers import scale_by_expected_improvement
      >>> tx = optax.chain(optax.scale_by_adam(), scale_by_expected_improvement())
      >>> params = jnp.array([3.0, -2.0])
      >>> state = tx.init(params)
      >>> value_fn = lambda w: jnp.sum(w**2)
      >>> for _ in range(60):
      ...     grads = jax.grad(value_fn)(params)
      ...     updates, state = tx.update(grads, state, params, value_fn=value_fn)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(value_fn(params) < 1e-2)
      True

    Source: Chen et al. (2020), arXiv 2011.04803, section 4, with expected improvement over a
    calibrated interval in place of the probability of improvement.
    """
    rule = step_rule(acquisition, calibrate, max_step_size, decay)
    check_differentiation(differentiation)
    options = (differentiation, axis_name)

    def init_fn(params: PyTree) -> ExpectedImprovementState:
        state = rule.init(params)
        return ExpectedImprovementState(zeros_like(params), state)

    def update_fn(updates, state, params=None, *, value_fn=None, **extra_args):
        del extra_args
        value_fn = require_value_fn("scale_by_expected_improvement", params, value_fn)
        first = state.rule.count == 0
        displacement = displacement_from(state.params, params, first)
        distance = norm(displacement)
        behind = Behind(
            distance=distance,
            claimed_slope=-state.rule.model.slope * distance,
            claimed_slope_variance=state.rule.model.slope_variance * jnp.square(distance),
            seen=directional(value_fn, params, displacement, *options),
        )
        ahead, direction = look_ahead(value_fn, params, updates, *options)
        updates, new_rule, finite = rule.step(
            state.rule, behind, ahead, direction, params, state.params, all_finite(updates)
        )
        params = select_state(finite, params, state.params)
        return updates, ExpectedImprovementState(params, new_rule)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def look_ahead(
    value_fn: ValueFn,
    params: PyTree,
    updates: PyTree,
    differentiation: Differentiation,
    axis_name: AxisName | None,
) -> tuple[Ahead, PyTree]:
    """Measure the batch along the unit vector of −updates: beliefs ahead, and that vector."""
    direction_norm = norm(updates)
    direction = unit(jax.tree.map(jnp.negative, updates), direction_norm)
    seen = directional(value_fn, params, direction, differentiation, axis_name)
    ahead = Ahead(
        slope=-seen.slope,
        slope_variance=seen.slope_variance,
        curvature=seen.curvature,
        curvature_variance=seen.curvature_variance,
        direction_norm=direction_norm,
    )
    return ahead, direction
