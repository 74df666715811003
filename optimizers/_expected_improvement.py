"""The step rule: observe, look back, filter, believe, learn, decide, step.

Along the unit vector v of a direction d the loss is a `LineBelief`; what is chosen is a distance α
along v. The step size that `metrics` shows is α/‖d‖, in units of the direction as given.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from ..curvature import (
    AxisName,
    Differentiation,
    LineBelief,
    ValueBelief,
    ValueFn,
    correct_value,
    predict_value,
)
from ..curvature._derivatives import check_differentiation, mean_gradient
from ..curvature._tree import PyTree, coarsest, finite_scalars, widen, zeros_like
from ._acquisition import Acquisition, AcquisitionName, resolve_acquisition
from ._arguments import (
    check_cap,
    check_interval,
    of_group,
    require_consistency,
    require_gradient,
    require_value_fn,
    resolve_trust_region,
)
from ._horizon import HorizonState, follow, init_horizon, look_back
from ._maximize import maximize_on_interval
from ._observation import (
    MAX_MISMATCH,
    Observation,
    branch,
    cast_like,
    climbs,
    divide,
    observe_step,
)
from ._state import ExpectedImprovementState, StepInfo, StepState, init_step
from ._trust_region import Evidence, Outcome, TrustRegion, adaptive_trust_region

CURVATURE_INTERVAL = 10  # the curvature changes more slowly than the slope
_VALUE_NOISE_WEIGHT = 0.01
_SLOPE_RATIO_WEIGHT = 0.05
_TOLERANCE = 0.1  # relative deviation of the distance moved up to which a step is the one chosen
_MOST_PATIENCE = 1000
_WIDE = 1e30  # parameters of dtypes with a smaller maximum, float16, may overflow themselves


def scale_by_expected_improvement(
    acquisition: AcquisitionName | Acquisition | None = None,
    trust_region: TrustRegion | None = None,
    max_step_size: jax.typing.ArrayLike | None = None,
    curvature_interval: int = CURVATURE_INTERVAL,
    differentiation: Differentiation = "auto",
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Choose the size of the step along any direction: put it last in a chain, in place of a rate.

    The change of the loss along the line θ + α v, v = d/‖d‖, d = −updates, is modeled as

        Δ(α) ~ N(α s + ½ α² h,  α² p + α³ c + ¼ α⁴ q)

    with slope s = v·∇f, curvature h = v·∇²f v and the variances p, q and covariance c of these two
    means over the examples of a batch. By default the step ends where the trust region does, whose
    radius aims at the minimum of the line, at the edge of stability or beyond it; which of the
    three, the losses along two averages of the iterates decide (`adaptive_trust_region`). An
    acquisition, if one is given, may end the step earlier, by what is believed of the line.

    Every batch shows the slopes along the step before and along the direction ahead, for the price
    of two dot products with the gradient. The curvature ahead changes slowly and takes a
    second-order forward-mode pass, which is made at every step until the trust region has learned
    from 20 (always, with `newton_trust_region`), at every tenth from then on, and where something
    is off: the slope after a step contradicts what is remembered, the gradient is not that of
    `value_fn`, or no step was made. In between, a new direction is taken to bend as the last did.
    At every tenth step, and where the loss climbs after a step, the losses at the iterate and at
    three places along two averages are compared as well, for four forward passes.

    Evaluate and deploy at `eval_params(state, params)`, which lies between the two, where losses
    were lowest; go on training from `params`.

    A batch at which the loss or the gradient is not finite is skipped; after ten in a row the step
    is blamed, and the parameters return to the last good point; where they are bad there too, the
    rule waits longer the next time. Where the loss rises far above that at the average, or is
    finite there alone, the parameters return to where one evaluates. Where the loss at the average
    itself rises, the problem is taken for a new one and all is learned afresh. Earlier members of
    a chain must not keep a NaN; those of `optax.scale_by_adam` do, those of `adameka` do not.

    A second derivative that does not exist is replaced by that of the parabola which falls to a
    loss of 0. Where the given gradient is not that of `value_fn`, slopes are scaled to those of
    `value_fn`, and `metrics` shows the mismatch; outside of `jit` it is an error.

    Args:
      acquisition: what the step maximizes within the trust region: None for its length;
        `"expected_improvement"`, `"probability_of_improvement"` (the published choice),
        `"expected_decrease"`, or a callable such as `improvement_threshold(0.9)`.
      trust_region: how far a line is believed; None is `adaptive_trust_region()`.
        `newton_trust_region()` is the published choice, which needs an acquisition.
      max_step_size: cap on α/‖d‖, or None; may be an array.
      curvature_interval: steps from one measurement of the curvature, and from one comparison with
        the averages, to the next.
      differentiation: `"auto"`: forward mode, or, for models without a forward-mode rule,
        differences of gradients; `"forward"`, `"reverse"` (reverse over reverse), `"differences"`.
      axis_name: axis of `shard_map`, `pmap` or `vmap` over which the batch is split into equal
        parts, or None; gradients must be those of the whole batch.

    Returns:
      A transformation whose `update` needs `params` and `value_fn`, a function from parameters to
      the per-example losses of the current batch, shape (n,), or to a scalar (shows no noise). Its
      updates are final: apply them as they are. With `grad=`, the gradient of the mean of these
      losses, it saves computing it again; with `value=`, that mean, it knows the loss at every
      step and not only where the curvature is measured.

    Raises:
      ValueError, TypeError: for unknown options, missing arguments, parameters that are not
        floating-point arrays, losses of a wrong shape; outside of `jit`, for a gradient that is not
        that of `value_fn`; each message says what to do.

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
      ...     updates, state = tx.update(grads, state, params, grad=grads, value_fn=value_fn)
      ...     return optax.apply_updates(params, updates), state
      >>> for _ in range(60):
      ...     params, state = step(params, state)
      >>> bool(value_fn(params) < 1e-2)
      True

    Source: Chen et al. (2020), arXiv 2011.04803, section 4, with a trust region that learns in
    place of the probability of improvement.
    """
    trust_region = resolve_trust_region(trust_region, adaptive_trust_region)
    choose = step_chooser(acquisition, trust_region)
    check_cap(max_step_size)
    check_interval(curvature_interval)
    check_differentiation(differentiation)

    def init_fn(params: PyTree) -> ExpectedImprovementState:
        step = init_step(params, trust_region)
        horizon = init_horizon(params) if trust_region.looks_back else ()
        return ExpectedImprovementState(zeros_like(params), horizon, step)

    def update_fn(
        updates, state, params=None, *, value_fn=None, value=None, grad=None, **extra_args
    ):
        del extra_args
        name = "scale_by_expected_improvement"
        value_fn = require_value_fn(name, params, value_fn)
        require_gradient(name, updates, params, complex_too=True)
        grad = mean_gradient(value_fn, params, axis_name) if grad is None else grad
        grad = of_group(grad, updates)
        require_gradient(name, grad, params, complex_too=True)
        # Observe; look back; filter, believe, learn, decide; step.
        observation = observe_step(
            value_fn,
            params,
            updates,
            grad,
            value,
            state,
            curvature_interval=curvature_interval,
            differentiation=differentiation,
            axis_name=axis_name,
        )
        horizon, evidence = observe_horizon(
            value_fn, params, state.horizon, state.step, observation, curvature_interval, axis_name
        )
        limit = step_limit(params, updates, observation, max_step_size)
        step = choose(state.step, observation, evidence, limit, coarsest(params))
        require_consistency(name, step.gradient_mismatch, MAX_MISMATCH)
        final, kept, horizon = move(step, updates, params, state.params, horizon, evidence)
        return final, ExpectedImprovementState(kept, horizon, step)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def observe_horizon(
    value_fn: ValueFn,
    params: PyTree,
    horizon: HorizonState | tuple[()],
    step: StepState,
    observation: Observation,
    interval: jax.typing.ArrayLike,
    axis_name: AxisName | None,
) -> tuple[HorizonState | tuple[()], Evidence | None]:
    """Look back every so many steps, and where the step made may have done harm."""
    if not isinstance(horizon, HorizonState):
        return horizon, None
    due = jax.lax.rem(step.count, jnp.asarray(interval, jnp.int32)) == 0
    due |= climbs(observation.behind.slope, step.belief) | ~observation.finite
    return look_back(value_fn, params, horizon, due, observation.finite, interval, axis_name)


def step_chooser(
    acquisition: AcquisitionName | Acquisition | None, trust_region: TrustRegion
) -> Callable[..., StepState]:
    """Build the function of scalars that turns an observation into a step."""
    utility = resolve_acquisition(acquisition)
    if utility is None and not trust_region.looks_back:
        raise ValueError(
            "mekax: expected an acquisition with a trust region that bounds steps and does not "
            'choose them, got None. Pass acquisition="probability_of_improvement" (the published '
            'choice) or "expected_improvement".'
        )

    # Compiled once, so that an eager loop does not compile the maximizer anew at every step.
    @jax.jit
    def choose(
        state: StepState,
        observation: Observation,
        evidence: Evidence | None,
        limit: jax.Array,
        rounding: float,
    ) -> StepState:
        # The line of the step made, α = 1 being the step itself: as predicted, and as seen. The
        # slope seen is this batch's; the curvature is as remembered, or, in `meka`, this batch's.
        predicted = state.belief.rescaled(observation.distance)
        seen = observation.behind.rescaled(observation.distance)
        outcome = classify(state, observation, rounding)

        # filter
        value, value_noise = filter_value(state, predicted, seen, observation)
        # believe: the filtered loss, and slope and curvature as they were observed
        belief = observation.ahead._replace(value=value.mean, value_variance=value.variance)
        # learn
        trust = trust_region.update(
            state.trust, outcome, seen, belief, evidence, observation.direction_norm, limit
        )
        # decide
        radius = jnp.minimum(trust_region.radius(trust), limit)
        if utility is None:
            distance = radius
        else:
            distance = maximize_on_interval(partial(utility, belief), radius)
        if evidence is not None:
            # After a rise the step from here is not made; the parameters return to the average.
            distance = jnp.where(evidence.risen, 0.0, distance)
            outcome = jnp.where(evidence.risen, Outcome.RETURNED, outcome).astype(jnp.int32)

        new = StepState(
            count=jnp.asarray(optax.safe_increment(state.count)),
            belief=belief,
            value_noise=value_noise,
            direction_norm=observation.direction_norm,
            params_norm=observation.params_norm,
            distance=distance,
            step_size=divide(distance, observation.direction_norm),
            outcome=outcome,
            trust=trust,
            gradient_mismatch=observation.mismatch,
            num_bad=jnp.zeros_like(state.num_bad),
            patience=state.patience,
            info=StepInfo(
                realized_change=jnp.where(state.count > 0, value.mean - state.belief.value, 0.0),
                slope_ratio=update_slope_ratio(state.info.slope_ratio, outcome, predicted, seen),
                differentiation=observation.differentiation,
                num_rejected=state.info.num_rejected,
            ),
        )
        # `lax.cond`, because XLA compiles the condition, and all it depends on, anew for each of
        # many `jnp.where`.
        return jax.lax.cond(
            observation.finite & finite_scalars(new._replace(info=())),
            lambda: cast_like(new, state),
            lambda: bad_batch(state, trust_region, evidence),
        )

    return choose


def classify(state: StepState, observation: Observation, rounding: float) -> jax.Array:
    """Say what became of the step chosen last, by its length; see `Outcome`."""
    distance = observation.distance
    resolution = rounding * state.params_norm
    chosen = jnp.abs(distance - state.distance) <= _TOLERANCE * state.distance + resolution
    truncated = state.distance < (1 - _TOLERANCE) * state.trust.radius
    # A step that something else cut short does not call for a longer radius.
    swallowed = (state.distance > 0) & (state.distance <= resolution) & ~truncated
    swallowed &= state.direction_norm > 0  # along nothing no step is too short
    moved = jnp.where(
        chosen, jnp.where(truncated, Outcome.TRUNCATED, Outcome.TAKEN), Outcome.EXTERNAL
    )
    # Where no step was chosen, as in a return, a displacement is none either.
    moved = jnp.where(state.distance > 0, moved, Outcome.NONE)
    stayed = jnp.where(swallowed, Outcome.UNRESOLVED, Outcome.NONE)
    return jnp.where(distance > 0, moved, stayed).astype(jnp.int32)


def update_slope_ratio(
    ratio: jax.Array, outcome: jax.Array, predicted: LineBelief, seen: LineBelief
) -> jax.Array:
    """Running average of the ratio of the slope that the batch finds to the predicted one."""
    taken = (outcome == Outcome.TAKEN) | (outcome == Outcome.TRUNCATED)
    slope_at_start = seen.slope - seen.curvature  # carried back over the step, of length 1 here
    descent = predicted.slope < 0
    confirmed = slope_at_start / jnp.where(descent, predicted.slope, 1.0)
    weight = jnp.where(taken & descent, _SLOPE_RATIO_WEIGHT, 0.0)
    return ratio + weight * (jnp.clip(confirmed, -10.0, 10.0) - ratio)


def filter_value(
    state: StepState, predicted: LineBelief, seen: LineBelief, observation: Observation
) -> tuple[ValueBelief, jax.Array]:
    """Predict the loss along the step made, and correct by the batch where its loss is known."""
    weight = jnp.maximum(_VALUE_NOISE_WEIGHT, 1 / (state.count + 1))
    weight = jnp.where(observation.measured, weight, 0.0)
    noise = state.value_noise + weight * (seen.value_variance - state.value_noise)
    # The curvature is the batch's own in `meka`; elsewhere both are the same. As published, slope
    # and curvature are independent here.
    prior = predict_value(
        ValueBelief(predicted.value, predicted.value_variance),
        predicted.slope + 0.5 * seen.curvature,
        predicted.slope_variance + 0.25 * seen.curvature_variance,
    )
    corrected, _ = correct_value(prior, seen.value, noise)
    value = optax.tree.where(observation.has_value, corrected, prior)
    return optax.tree.where(state.count > 0, value, ValueBelief(seen.value, noise)), noise


def bad_batch(state: StepState, trust_region: TrustRegion, evidence: Evidence | None) -> StepState:
    """The state after a batch at which something was not finite."""
    num_bad = state.num_bad + 1
    # Only a step that was made can be at fault, and only if batch after batch is bad there, or if
    # this one is good at the average.
    home = jnp.asarray(evidence is not None and evidence.risen)
    back = ~home & (num_bad >= state.patience) & (state.distance > 0)
    # No step was made since the parameters went back, and the batches stay bad: the step was not at
    # fault, bad batches are common, and from now on more of them are waited for.
    acquitted = (state.num_bad == state.patience) & (state.distance == 0) & (state.count > 0)
    patience = jnp.where(acquitted, 2 * state.patience, state.patience)
    rejected = trust_region.reject(state.trust)
    return state._replace(
        distance=jnp.where(back | home, 0.0, state.distance),
        step_size=jnp.zeros_like(state.step_size),
        outcome=jnp.select(
            [home, back], [Outcome.RETURNED, Outcome.REJECTED], Outcome.SKIPPED
        ).astype(jnp.int32),
        trust=cast_like(optax.tree.where(back | home, rejected, state.trust), state.trust),
        num_bad=num_bad,
        patience=jnp.minimum(patience, _MOST_PATIENCE),
        info=state.info._replace(num_rejected=state.info.num_rejected + 1),
    )


def step_limit(
    params: PyTree,
    updates: PyTree,
    observation: Observation,
    max_step_size: jax.typing.ArrayLike | None,
) -> jax.Array:
    """Length that no step exceeds, whatever is believed.

    No step is longer than the parameters are, or than 1 if they are 0, or than half the step
    before, so that a way leads past 0. That keeps a linear loss from sending the parameters to
    infinity.
    """
    length, direction_norm = observation.params_norm, observation.direction_norm
    limit = jnp.maximum(jnp.where(length > 0, length, 1.0), observation.distance / 2)
    if max_step_size is not None:
        limit = jnp.minimum(limit, max_step_size * direction_norm)
    # Entries of float16 stay below 99 % of the largest number there is.
    for p, u in zip(jax.tree.leaves(params), jax.tree.leaves(updates), strict=True):
        largest = float(jnp.finfo(jnp.result_type(p)).max)
        if largest < _WIDE and jnp.size(p):
            room = 0.99 * largest - jnp.abs(widen(p))
            speed = jnp.abs(widen(u))
            sizes = jnp.where(speed > 0, room / jnp.where(speed > 0, speed, 1), jnp.inf)
            longest = jnp.maximum(jnp.min(sizes), 0) * direction_norm
            limit = jnp.minimum(limit, jnp.where(direction_norm > 0, longest, limit))
    return limit


def copy(tree: PyTree) -> PyTree:
    """Arrays of their own, which live on where the caller donates the ones given."""
    return jax.tree.map(jnp.copy, tree)


def move(
    new: StepState,
    updates: PyTree,
    params: PyTree,
    last_good: PyTree,
    horizon: HorizonState | tuple[()],
    evidence: Evidence | None,
) -> tuple[PyTree, PyTree, HorizonState | tuple[()]]:
    """Step along d = −updates, or return: to the last good point, or to the average.

    Returns the update, the parameters from which the next displacement counts, and the averages.
    """
    good = new.num_bad == 0
    back = new.outcome == Outcome.REJECTED
    home = new.outcome == Outcome.RETURNED
    average = last_good  # unused, where there is no average to return to
    if isinstance(horizon, HorizonState) and evidence is not None:
        mean = horizon.average
        horizon = follow(horizon, params, mean, good, home, evidence.changed)
        average = optax.tree.cast_like(mean, params)

    def leaf(update: jax.Array, p: jax.Array, before: jax.Array, middle: jax.Array) -> jax.Array:
        way = jnp.where(back | home, widen(jnp.where(home, middle, before)) - widen(p), 0.0)
        return jnp.where(good & ~home, -new.step_size * widen(update), way)

    final = cast_like(jax.tree.map(leaf, updates, params, last_good, average), params)
    # `lax.cond` copies what it returns; `jnp.where` is one more kernel to compile for every leaf.
    kept = branch(
        good & ~home, lambda: copy(params), lambda: optax.tree.where(home, average, last_good)
    )
    return final, kept, horizon
