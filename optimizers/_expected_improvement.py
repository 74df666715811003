from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..curvature import DirectionalStatistics, directional
from ..curvature._mapped_axis import AxisName
from ..curvature._push_forward import Differentiation, check_differentiation
from ..curvature._trees import PyTree, cast_like, dot, widen, zeros_like
from ..curvature._validation import check_params
from ._acquisitions import Acquisition, AcquisitionName, resolve_acquisition
from ._arguments import require_gradient, require_value_fn
from ._direction import norm, norm_near, unit
from ._finite import all_finite, select
from ._line_model import LineModel
from ._step_rule import (
    DEFAULT,
    Ahead,
    Behind,
    Constants,
    StepRuleState,
    choose_length,
    init_step_rule,
    refuse_step,
)

_WIDE = 1e30  # types that reach so far see a loss that is not finite before they end


class ExpectedImprovementState(NamedTuple):
    """State of `scale_by_expected_improvement`.

    Attributes:
      params: parameters at the last good step.
      rule: state of the step rule.
    """

    params: PyTree
    rule: StepRuleState


class StepRule(NamedTuple):
    """The rule as functions shared by the transformations that end in a step.

    Attributes:
      init: params → `StepRuleState`.
      step: turns a direction and beliefs about it into updates; see `step_rule`.
      calibrate: whether the trust interval is adapted.
    """

    init: Any
    step: Any
    calibrate: bool


def step_rule(
    acquisition: AcquisitionName | Acquisition,
    calibrate: bool,
    max_step_size: jax.typing.ArrayLike | None,
    decay: float,
    constants: Constants = DEFAULT,
) -> StepRule:
    """Build the step rule; `step` turns a direction and beliefs about it into updates."""
    utility = resolve_acquisition(acquisition)
    if not isinstance(calibrate, bool):
        raise TypeError(
            f"mekax: expected calibrate to be True or False, got {calibrate!r}. It decides what is "
            'measured: with optax.inject_hyperparams name it in static_args=("calibrate",).'
        )

    if callable(max_step_size) or isinstance(max_step_size, str):
        raise TypeError(
            f"mekax: expected max_step_size to be a number or None, got {max_step_size!r}. For a "
            "cap that changes, use optax.inject_hyperparams with a schedule."
        )
    if isinstance(max_step_size, int | float) and not max_step_size > 0:
        raise ValueError(
            f"mekax: expected max_step_size to be above 0, got {max_step_size!r}. Leave it out for "
            "steps without a cap."
        )

    def init(params: PyTree) -> StepRuleState:
        check_params(params)
        dtype = jnp.result_type(jnp.float32, *(jnp.result_type(p) for p in jax.tree.leaves(params)))
        return init_step_rule(dtype)

    # Compiled by itself where the loop around it is not; there, nothing else is as slow.
    @jax.jit
    def decide(
        state: StepRuleState,
        behind: Behind,
        ahead: Ahead,
        descent: PyTree,
        params: PyTree,
        finite: jax.Array,
    ) -> tuple[jax.Array, StepRuleState]:
        # No step reaches farther than the parameters are long: a bound that only a vanishing
        # curvature meets, and that keeps a linear loss from sending them to infinity.
        length = jnp.sqrt(dot(params, params))
        limit = jnp.where(length > 0, length, 1)
        if max_step_size is not None:
            limit = jnp.minimum(limit, max_step_size * ahead.direction_norm)
        lost = (
            (behind.distance == 0)
            & (state.length > 0)
            & (state.length <= _coarsest(params) * length)
        )
        new = choose_length(state, behind, ahead, limit, utility, calibrate, decay, constants, lost)
        # A branch, because a choice for each number would have XLA compile the condition, and all
        # it depends on, anew for every number.
        return jax.lax.cond(
            finite & all_finite((behind, ahead, new)) & _in_range(params, new, descent),
            lambda: (jnp.array(True), cast_like(new, state)),
            lambda: (jnp.array(False), refuse_step(state, constants)),
        )

    @jax.jit
    def move(
        forth: jax.Array,
        step_size: jax.Array,
        descent: PyTree,
        params: PyTree,
        previous: PyTree,
        back: jax.Array,
    ) -> tuple[PyTree, PyTree]:
        # A branch again, and one for both: their order is then fixed, and every array is written
        # where it lies. Of choices for each entry XLA copies both sets of parameters first.
        def go_forth() -> tuple[PyTree, PyTree]:
            return cast_like(jax.tree.map(lambda d: step_size * d, descent), params), params

        def go_back() -> tuple[PyTree, PyTree]:
            way = jax.tree.map(jnp.subtract, widen(previous), widen(params))
            way = select(back, way, jax.tree.map(jnp.zeros_like, way))
            return cast_like(way, params), previous

        return jax.lax.cond(forth, go_forth, go_back)

    def step(
        state: StepRuleState,
        behind: Behind,
        ahead: Ahead,
        descent: PyTree,
        params: PyTree,
        previous: PyTree,
        finite: jax.Array,
    ) -> tuple[PyTree, PyTree, StepRuleState, jax.Array]:
        """Choose the length and return `(updates, parameters to keep, state, finite)`.

        `descent` is the direction d as given. Where anything measured is not finite the updates
        lead back to `previous`, the last point at which all was well, which is kept.
        """
        finite, new = decide(state, behind, ahead, descent, params, finite)
        updates, kept = move(finite, new.step_size, descent, params, previous, state.count > 0)
        return updates, kept, new, finite

    return StepRule(init, step, calibrate)


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

    with slope, curvature and their variances over the examples measured by a nested forward-mode
    pass along d, and the step is the maximizer of the acquisition over a trust interval (0, τ]. A
    second pass looks back along the last step: τ closes the loop on the slope that the next, fresh
    batch shows there (`_step_rule.py`), so that directions that promise too much are stepped along
    less.

    Where a measurement is not finite, the parameters return to the last good point, the trust
    interval is halved for the next steps if one had been made, and the step is counted in
    `skipped`.

    Args:
      acquisition: `"expected_improvement"`, `"probability_of_improvement"` (the published
        choice), `"expected_decrease"`, or a callable such as `improvement_threshold(0.9)`.
      calibrate: adapt the trust interval to what steps turn out to do. Without it the interval
        ends at 3 Newton steps, as published; static.
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
      >>> @jax.jit
      ... def step(params, state):
      ...     grads = jax.grad(value_fn)(params)
      ...     updates, state = tx.update(grads, state, params, value_fn=value_fn)
      ...     return optax.apply_updates(params, updates), state
      >>> for _ in range(60):
      ...     params, state = step(params, state)
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
        require_gradient("scale_by_expected_improvement", updates, params)

        def measure(line: Callable[[], PyTree]) -> DirectionalStatistics:
            return directional(value_fn, params, line(), *options)

        descent = jax.tree.map(jnp.negative, widen(updates))
        updates, state, _ = step_along(rule, state, descent, params, measure, all_finite(updates))
        return updates, state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def step_along(
    rule: StepRule,
    state: ExpectedImprovementState,
    descent: PyTree,
    params: PyTree,
    measure: Callable[[Callable[[], PyTree]], DirectionalStatistics],
    finite: jax.Array,
    gradient: PyTree | None = None,
) -> tuple[PyTree, ExpectedImprovementState, jax.Array]:
    """Go along a direction as far as the rule says.

    The batch is first seen along the last displacement, to learn from it; or, where there is no
    displacement or no calibration, along the direction itself.

    Args:
      rule: the step rule.
      state: of the previous step.
      descent: d, any scale.
      params: θ.
      measure: the batch along a unit vector, which is given as a function that builds it.
      finite: whether the direction is to be trusted.
      gradient: of the batch at θ, if known. Slopes are then its products with the directions, and
        the curvature along the last displacement stands for that along d.

    Returns:
      Final updates, the new state, and whether a step was made.
    """

    # No vector of the size of the parameters is kept that a reduction or a branch can rebuild.
    def displacement() -> PyTree:
        return jax.tree.map(jnp.subtract, widen(params), widen(state.params))

    # Computed once: otherwise parts of it are repeated where it is used.
    descent = jax.lax.optimization_barrier(descent)
    descent_norm = norm(descent)
    # Where nothing was kept yet, the number is set to zero and not the vector, which then needs no
    # memory of its own.
    distance = jnp.where(state.rule.count == 0, 0, norm_near(displacement(), state.rule.length))
    back = (distance > 0) & rule.calibrate

    def line() -> PyTree:
        return select(back, unit(displacement(), distance), unit(descent, descent_norm))

    seen = measure(line)
    if gradient is not None:
        slope = dot(gradient, unit(descent, descent_norm))
        # The way back, not its opposite, which would be shared with its norm and so be kept whole.
        way_back = jax.tree.map(jnp.subtract, widen(state.params), widen(params))
        along_last = -dot(gradient, unit(way_back, distance))
        seen = seen._replace(slope=jnp.where(back, along_last, slope))
        there = seen._replace(slope=slope)
    else:
        there = measure(lambda: unit(descent, descent_norm)) if rule.calibrate else seen
    behind = Behind(
        distance=distance,
        claimed_slope=-state.rule.model.slope * distance,
        claimed_slope_variance=state.rule.model.slope_variance * jnp.square(distance),
        seen=_over(seen if rule.calibrate else _as_modeled(seen, state.rule.model), distance),
    )
    ahead = Ahead(
        slope=-there.slope,
        slope_variance=there.slope_variance,
        curvature=there.curvature,
        curvature_variance=there.curvature_variance,
        direction_norm=descent_norm,
    )
    updates, kept, new_rule, finite = rule.step(
        state.rule, behind, ahead, descent, params, state.params, finite
    )
    return updates, ExpectedImprovementState(kept, new_rule), finite


def _coarsest(params: PyTree) -> float:
    """The largest relative rounding error of the parameters' types."""
    return max(float(jnp.finfo(jnp.result_type(p)).eps) for p in jax.tree.leaves(params))


def _in_range(params: PyTree, state: StepRuleState, descent: PyTree) -> jax.Array:
    """Whether the parameters stay finite; asked only of types that a long step can leave."""

    def most(p: jax.Array) -> float:
        return float(jnp.finfo(jnp.result_type(p)).max)

    narrow = [
        jnp.all(jnp.abs(widen(p) + state.step_size * d) <= most(p))
        for p, d in zip(jax.tree.leaves(params), jax.tree.leaves(descent), strict=True)
        if most(p) < _WIDE
    ]
    return jnp.all(jnp.stack(narrow)) if narrow else jnp.array(True)


def _over(seen: DirectionalStatistics, distance: jax.Array) -> DirectionalStatistics:
    """Statistics along a unit vector ↦ along that vector times a distance."""
    return seen._replace(
        slope=seen.slope * distance,
        slope_variance=seen.slope_variance * distance**2,
        curvature=seen.curvature * distance**2,
        curvature_variance=seen.curvature_variance * distance**4,
    )


def _as_modeled(seen: DirectionalStatistics, model: LineModel) -> DirectionalStatistics:
    """The loss as seen now, the line as it was modeled before the step along it."""
    return seen._replace(
        slope=0 * seen.slope,
        slope_variance=model.slope_variance,
        curvature=model.curvature,
        curvature_variance=model.curvature_variance,
    )
