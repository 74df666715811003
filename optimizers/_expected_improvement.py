"""The step rule: observe, filter, believe, learn, decide, step.

Along the unit vector v of a direction d the loss is a `LineBelief`; what is chosen is a distance α
along v, so that no power of a tiny or huge direction leaves the range of its dtype. The step size
that `metrics` shows is α/‖d‖, in units of the direction as given.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

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
from ..curvature._line import observe_with_mode
from ..curvature._tree import (
    PyTree,
    all_finite,
    dot,
    norm,
    norm_near,
    real_dtype,
    safe_sqrt,
    unit,
    widen,
    zeros_like,
)
from ..curvature._validation import check_params
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
from ._maximize import maximize_on_interval
from ._trust_region import Outcome, TrustRegion, adaptive_trust_region

CURVATURE_INTERVAL = 10  # the curvature changes more slowly than the slope
_EVERY_STEP_UNTIL = 20  # steps learned from, at each of which the curvature is measured
_VALUE_NOISE_DECAY = 0.99
_SLOPE_RATIO_DECAY = 0.95
_TOLERANCE = 0.1  # relative deviation of the distance moved up to which a step is the one chosen
_PATIENCE = 5  # batches in a row that are not finite, of which the last blames the step
CONSISTENT = 0.1  # mismatch of slopes that rounding and reduced precision may leave


class StepInfo(NamedTuple):
    """What is worth knowing of a step and feeds back into nothing; see `metrics`."""

    step_size: jax.Array
    predicted_change: jax.Array
    realized_change: jax.Array
    slope_ratio: jax.Array
    outcome: jax.Array
    differentiation: jax.Array
    num_rejected: jax.Array


class StepState(NamedTuple):
    """What the step rule keeps from step to step: scalars only.

    Attributes:
      count: batches that were finite, int32.
      value: N(u, s), filtered loss.
      value_noise: moving average of r, the variance of a batch's mean loss.
      belief: about the line of the last step.
      direction_norm: ‖d‖ of the last direction.
      distance: α, the length of the last step.
      trust: state of the trust region.
      gradient_mismatch: relative deviation of the given gradient's slope from that of `value_fn`.
      num_bad: batches in a row that were not finite, int32.
      info: what feeds back into nothing.
    """

    count: jax.Array
    value: ValueBelief
    value_noise: jax.Array
    belief: LineBelief
    direction_norm: jax.Array
    distance: jax.Array
    trust: Any
    gradient_mismatch: jax.Array
    num_bad: jax.Array
    info: StepInfo

    def metrics(self) -> dict[str, jax.Array]:
        """Scalars for `mekax.optimizers.metrics`, where they are explained."""
        belief = self.belief
        limits = jnp.finfo(self.distance.dtype)
        tiny, most = float(limits.tiny), float(limits.max)
        length = jnp.maximum(self.direction_norm, tiny)
        curvature = jnp.maximum(jnp.abs(belief.curvature), tiny)
        variance = belief.rescaled(self.distance).curvature_variance
        spread = belief.slope_variance + variance / jnp.maximum(jnp.square(self.distance), tiny)
        # Compiled, the two divisions may become one by a product that is 0.
        deviation = jnp.where(spread > 0, jnp.sqrt(spread) / curvature / length, 0)
        snr = jnp.square(belief.slope) / jnp.maximum(belief.slope_variance, tiny)
        return {
            "step_size_std": jnp.minimum(deviation, most),
            "slope": belief.slope,
            "slope_std": jnp.sqrt(belief.slope_variance),
            "curvature": belief.curvature,
            "curvature_std": jnp.sqrt(belief.curvature_variance),
            "direction_norm": self.direction_norm,
            "snr": jnp.minimum(snr, most),
            "loss_mean": self.value.mean,
            "loss_std": jnp.sqrt(self.value.variance),
            "gradient_mismatch": self.gradient_mismatch,
            **self.info._asdict(),
        }


class ExpectedImprovementState(NamedTuple):
    """State of `scale_by_expected_improvement`.

    Attributes:
      params: parameters at the last finite batch.
      step: what the rule keeps, scalars.
    """

    params: PyTree
    step: StepState


def init_step(params: PyTree, trust_region: TrustRegion) -> StepState:
    """Build the state before the first step."""
    check_params(params, complex_too=True)
    dtype = real_dtype(*map(jnp.result_type, jax.tree.leaves(params)))

    # Every leaf is an array of its own: shared ones cannot be donated.
    def zeros(number: int, dtype: Any = dtype) -> list[jax.Array]:
        return [jnp.zeros((), dtype) for _ in range(number)]

    integers = zeros(5, jnp.int32)
    return StepState(
        count=integers[0],
        value=ValueBelief(*zeros(2)),
        value_noise=zeros(1)[0],
        belief=LineBelief(*zeros(7)),
        direction_norm=zeros(1)[0],
        distance=zeros(1)[0],
        trust=trust_region.init(dtype),
        gradient_mismatch=zeros(1)[0],
        num_bad=integers[1],
        info=StepInfo(*zeros(3), jnp.ones((), dtype), *integers[2:]),
    )


class Observation(NamedTuple):
    """What a batch shows.

    Attributes:
      line: the batch along the last step, per unit of length; where there was none, along the
        direction.
      distance: length of the displacement made since the last finite batch.
      has_value: whether the batch's loss is known.
      has_noise: whether the noise of that loss is known, and the curvature is fresh.
      mismatch: relative deviation of the gradient's slope from that of `value_fn`.
      finite: whether all that a step needs is finite.
      differentiation: index of the mode of differentiation.
    """

    line: LineBelief
    distance: jax.Array
    has_value: jax.Array | bool
    has_noise: jax.Array | bool
    mismatch: jax.Array
    finite: jax.Array
    differentiation: jax.Array | int


def scale_by_expected_improvement(
    acquisition: AcquisitionName | Acquisition = "expected_improvement",
    trust_region: TrustRegion | None = None,
    max_step_size: jax.typing.ArrayLike | None = None,
    curvature_interval: int = CURVATURE_INTERVAL,
    differentiation: Differentiation = "auto",
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Choose the size of the step along any direction: put it last in a chain, in place of a rate.

    The change of the loss along the line θ + α v, v = d/‖d‖, d = −updates, is modeled as

        Δ(α) ~ N(α s + ½ α² h,  α² p + α³ c + ¼ α⁴ q)

    with slope s = v·∇f, curvature h = v·∇²f v and their variances p, q and covariance c over the
    examples, and the step maximizes the acquisition over an interval (0, τ‖d‖] that the trust
    region ends. Every batch shows the slope along the step before, for the price of a dot product
    with the gradient; the curvature along it changes slowly and takes a second-order forward-mode
    pass, which is made at the first 20 steps and at every tenth from then on.

    A batch at which the loss or the gradient is not finite is skipped; after five in a row the step
    is blamed, and the parameters return to the last good point. A second derivative that does not
    exist is replaced by that of the parabola which falls to a loss of 0.

    Args:
      acquisition: `"expected_improvement"`, `"probability_of_improvement"` (the published
        choice), `"expected_decrease"`, or a callable such as `improvement_threshold(0.9)`.
      trust_region: how far a line is believed; None is `adaptive_trust_region()`.
        `newton_trust_region()` is the published choice.
      max_step_size: cap on α/‖d‖, or None; may be an array.
      curvature_interval: steps from one measurement of the curvature to the next.
      differentiation: `"auto"`: forward mode, or, for models without a forward-mode rule,
        differences of gradients; `"forward"`, `"reverse"` (reverse over reverse), `"differences"`.
      axis_name: axis of `shard_map`, `pmap` or `vmap` over which the batch is split into equal
        parts, or None; gradients must be those of the whole batch.

    Returns:
      A transformation whose `update` needs `params` and `value_fn`, a function from parameters to
      the per-example losses of the current batch, shape (n,), or to a scalar (noise-free). Its
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

    Source: Chen et al. (2020), arXiv 2011.04803, section 4, with expected improvement over a
    trust region that learns in place of the probability of improvement.
    """
    trust_region = resolve_trust_region(trust_region, adaptive_trust_region)
    choose = step_chooser(acquisition, trust_region)
    check_cap(max_step_size)
    check_interval(curvature_interval)
    check_differentiation(differentiation)

    def init_fn(params: PyTree) -> ExpectedImprovementState:
        step = init_step(params, trust_region)
        return ExpectedImprovementState(zeros_like(params), step)

    def update_fn(
        updates, state, params=None, *, value_fn=None, value=None, grad=None, **extra_args
    ):
        del extra_args
        name = "scale_by_expected_improvement"
        value_fn = require_value_fn(name, params, value_fn)
        require_gradient(name, updates, params, complex_too=True)
        if grad is None:
            grad = mean_gradient(value_fn, params, axis_name)
        grad = of_group(grad, updates)
        measure = _measuring(value_fn, params, differentiation, axis_name, curvature_interval)
        direction_norm = norm(updates)
        observation, belief = _observe(state, params, updates, direction_norm, grad, value, measure)
        limit = step_limit(params, updates, direction_norm, max_step_size)
        resolution = coarsest(params) * safe_sqrt(dot(params, params))
        step = choose(state.step, observation, belief, direction_norm, limit, resolution)
        require_consistency(name, step.gradient_mismatch, CONSISTENT)
        return move(step, updates, params, state.params)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _measuring(
    value_fn: ValueFn,
    params: PyTree,
    differentiation: Differentiation,
    axis_name: AxisName | None,
    interval: int,
) -> Callable[..., tuple[LineBelief, jax.Array, jax.Array, jax.Array]]:
    """Measure the batch along a direction where that is due, and look it up where it is not."""

    def measure(
        state: StepState, updates: PyTree, direction_norm: jax.Array, grad: PyTree, behind: jax.Array
    ) -> tuple[LineBelief, jax.Array, jax.Array, jax.Array]:
        due = (state.trust.count < _EVERY_STEP_UNTIL) | (state.count % interval == 0)
        # What went wrong may come of what is remembered.
        due |= (state.distance == 0) | (state.num_bad > 0)
        due |= (state.gradient_mismatch > CONSISTENT) | (behind > jnp.abs(state.belief.slope))

        def afresh():
            direction = unit(optax.tree.scale(-1, widen(updates)), direction_norm)
            seen, mode = observe_with_mode(value_fn, params, direction, differentiation, axis_name)
            mismatch = slope_mismatch(dot(grad, direction), seen.slope, grad, params)
            return _cast_like((seen, mismatch, jnp.int32(mode)), cached)

        cached = (state.belief, state.gradient_mismatch, state.info.differentiation)
        return *_branch(due, afresh, lambda: cached), due

    return measure


def _observe(
    state: ExpectedImprovementState,
    params: PyTree,
    updates: PyTree,
    direction_norm: jax.Array,
    grad: PyTree,
    value: jax.Array | None,
    measure: Callable[..., tuple[LineBelief, jax.Array, jax.Array, jax.Array]],
) -> tuple[Observation, LineBelief]:
    """What the batch shows along the last step, and along the direction that is next."""
    step = state.step
    displacement = optax.tree.sub(widen(params), widen(state.params))
    distance = jnp.where(step.count > 0, norm_near(displacement, step.distance), 0)
    behind = dot(grad, displacement) / jnp.where(distance > 0, distance, 1)
    behind = jnp.where(distance > 0, behind, 0)
    ahead = -dot(grad, updates) / jnp.where(direction_norm > 0, direction_norm, 1)
    seen, mismatch, differentiation, measured = measure(step, updates, direction_norm, grad, behind)
    known = seen.value if value is None else jnp.where(measured, seen.value, jnp.mean(value))
    finite = jnp.isfinite(ahead) & jnp.isfinite(behind) & jnp.isfinite(known)
    correction = slope_correction(mismatch, ahead, seen.slope)
    belief = bend(seen._replace(value=known, slope=ahead * correction))
    last = step.belief._replace(
        value=known, value_variance=belief.value_variance, slope=behind * correction
    )
    has_noise = measured & jnp.isfinite(seen.value_variance)
    observation = Observation(
        last, distance, measured | (value is not None), has_noise, mismatch, finite, differentiation
    )
    return observation, belief


def slope_mismatch(
    given: jax.Array, measured: jax.Array, grad: PyTree, params: PyTree
) -> jax.Array:
    """Relative deviation of the given gradient's slope from that of `value_fn`, in [0, 2].

    Relative to the gradient as well, so that the rounding of a slope near 0 is no mismatch.
    """
    rounding = coarsest(params) ** 0.5 * safe_sqrt(dot(grad, grad))
    largest = jnp.maximum(jnp.abs(measured), jnp.abs(given)) + rounding
    return jnp.abs(measured - given) / jnp.where(largest > 0, largest, 1)


def slope_correction(mismatch: jax.Array, given: jax.Array, measured: jax.Array) -> jax.Array:
    """Factor that makes of a slope of the given gradient, such as of a sum, one of `value_fn`."""
    ratio = jnp.clip(measured / jnp.where(given == 0, 1, given), 0, 100)
    return jnp.where(mismatch > CONSISTENT, ratio, 1)


def bend(seen: LineBelief) -> LineBelief:
    """Replace a second derivative that does not exist by that of a parabola.

        h = s²/(2 |y|),  which falls from the loss y with the slope s to a loss of 0
    """
    exists = all_finite((seen.curvature, seen.curvature_variance, seen.covariance))
    parabola = jnp.square(seen.slope) / (2 * jnp.abs(jnp.where(seen.value == 0, 1, seen.value)))
    return seen._replace(
        slope_variance=jnp.where(jnp.isfinite(seen.slope_variance), seen.slope_variance, 0),
        curvature=jnp.where(exists, seen.curvature, parabola),
        curvature_variance=jnp.where(exists, seen.curvature_variance, 0),
        covariance=jnp.where(exists, seen.covariance, 0),
    )


def step_chooser(
    acquisition: AcquisitionName | Acquisition, trust_region: TrustRegion
) -> Callable[..., StepState]:
    """Build the function of scalars that turns an observation and a belief into a step."""
    utility = resolve_acquisition(acquisition)

    # Compiled by itself where the loop around it is not; there, nothing else is as slow.
    @jax.jit
    def choose(
        state: StepState,
        observation: Observation,
        belief: LineBelief,
        direction_norm: jax.Array,
        limit: jax.Array,
        resolution: jax.Array,
    ) -> StepState:
        outcome = classify(state, observation, resolution)
        seen = observation.line.rescaled(observation.distance)
        prior = state.belief.rescaled(observation.distance)
        value, value_noise = _filter_value(state, prior, seen, observation)
        belief = belief._replace(value=value.mean, value_variance=value.variance)
        trust = trust_region.update(
            state.trust, outcome, seen, belief, direction_norm, limit
        )
        radius = jnp.minimum(trust_region.radius(trust, belief), limit)
        distance = maximize_on_interval(lambda step: utility(belief, step), radius)

        taken = (outcome == Outcome.TAKEN) | (outcome == Outcome.TRUNCATED)
        confirmed = (seen.slope - seen.curvature) / jnp.where(prior.slope < 0, prior.slope, 1)
        slope_ratio = optax.tree.update_moment(
            jnp.clip(confirmed, -10, 10), state.info.slope_ratio, _SLOPE_RATIO_DECAY, 1
        )
        new = StepState(
            count=jnp.asarray(optax.safe_increment(state.count)),
            value=value,
            value_noise=value_noise,
            belief=belief,
            direction_norm=direction_norm,
            distance=distance,
            trust=trust,
            gradient_mismatch=observation.mismatch,
            num_bad=jnp.zeros_like(state.num_bad),
            info=StepInfo(
                step_size=distance / jnp.maximum(direction_norm, float(jnp.finfo(limit.dtype).tiny)),
                predicted_change=belief.change(distance),
                realized_change=jnp.where(state.count > 0, value.mean - state.value.mean, 0),
                slope_ratio=jnp.where(
                    taken & (prior.slope < 0), slope_ratio, state.info.slope_ratio
                ),
                outcome=outcome,
                differentiation=jnp.asarray(observation.differentiation),
                num_rejected=state.info.num_rejected,
            ),
        )
        # A branch, because a choice for each number would have XLA compile the condition, and all
        # it depends on, anew for every number.
        return jax.lax.cond(
            observation.finite & all_finite(new),
            lambda: _cast_like(new, state),
            lambda: _bad_batch(state, trust_region),
        )

    return choose


def classify(state: StepState, observation: Observation, resolution: jax.Array) -> jax.Array:
    """Say what became of the last step; see `Outcome`."""
    distance = observation.distance
    moved = distance > 0
    chosen = moved & (jnp.abs(distance - state.distance) <= _TOLERANCE * state.distance)
    truncated = state.distance < (1 - _TOLERANCE) * state.trust.radius
    swallowed = ~moved & (state.distance > 0) & (state.distance <= resolution)
    return jnp.select(
        [chosen & truncated, chosen, moved, swallowed],
        [
            jnp.int32(outcome)
            for outcome in (
                Outcome.TRUNCATED,
                Outcome.TAKEN,
                Outcome.EXTERNAL,
                Outcome.UNRESOLVED,
            )
        ],
        jnp.int32(Outcome.NONE),
    )


def _filter_value(
    state: StepState, prior: LineBelief, seen: LineBelief, observation: Observation
) -> tuple[ValueBelief, jax.Array]:
    """Predict the loss along the last step, and correct by the batch where its loss is known."""
    count = state.count + 1
    weight = (1 - _VALUE_NOISE_DECAY) / (1 - _VALUE_NOISE_DECAY**count)
    noise = state.value_noise + weight * (seen.value_variance - state.value_noise)
    noise = jnp.where(observation.has_noise, noise, state.value_noise)
    predicted = predict_value(
        state.value,
        prior.slope + 0.5 * seen.curvature,
        prior.slope_variance + 0.25 * seen.curvature_variance,
    )
    corrected, _ = correct_value(predicted, seen.value, noise)
    value = optax.tree.where(observation.has_value, corrected, predicted)
    return optax.tree.where(state.count > 0, value, ValueBelief(seen.value, noise)), noise


def _bad_batch(state: StepState, trust_region: TrustRegion) -> StepState:
    """What is left of a batch at which something was not finite."""
    num_bad = state.num_bad + 1
    # Only a step that was made can be at fault, and only if batch after batch is bad there.
    back = (num_bad >= _PATIENCE) & (state.distance > 0)
    info = state.info._replace(
        step_size=jnp.zeros_like(state.info.step_size),
        outcome=jnp.where(back, jnp.int32(Outcome.REJECTED), jnp.int32(Outcome.SKIPPED)),
        num_rejected=jnp.asarray(optax.safe_increment(state.info.num_rejected)),
    )
    return state._replace(
        distance=jnp.where(back, 0, state.distance),
        trust=_cast_like(
            optax.tree.where(back, trust_region.reject(state.trust), state.trust), state.trust
        ),
        num_bad=num_bad,
        info=info,
    )


def step_limit(
    params: PyTree,
    updates: PyTree,
    direction_norm: jax.Array,
    max_step_size: jax.typing.ArrayLike | None,
) -> jax.Array:
    """Length that no step exceeds, whatever is believed.

    No step reaches farther than the parameters are long: a bound that only a vanishing curvature
    meets, and that keeps a linear loss from sending them to infinity.
    """
    length = safe_sqrt(dot(params, params))
    limit = jnp.where(length > 0, length, 1)
    if max_step_size is not None:
        limit = jnp.minimum(limit, max_step_size * direction_norm)
    for p, u in zip(jax.tree.leaves(params), jax.tree.leaves(updates), strict=True):
        largest = float(jnp.finfo(jnp.result_type(p)).max)
        if largest < 1e30 and jnp.size(p):  # float16: parameters of wider types never get there
            room = 0.99 * largest - jnp.abs(widen(p))
            speed = jnp.abs(widen(u))
            steps = jnp.min(jnp.where(speed > 0, room / jnp.where(speed > 0, speed, 1), jnp.inf))
            limit = jnp.minimum(limit, jnp.maximum(steps, 0) * direction_norm)
    return limit


def move(
    new: StepState, updates: PyTree, params: PyTree, previous: PyTree
) -> tuple[PyTree, ExpectedImprovementState]:
    """Go along d = −updates, stay where a batch was bad, or return to where the last was not."""
    good = new.num_bad == 0
    back = new.info.outcome == Outcome.REJECTED

    def leaf(update: jax.Array, p: jax.Array, before: jax.Array) -> jax.Array:
        home = jnp.where(back, widen(before) - widen(p), 0)
        return jnp.where(good, -new.info.step_size * widen(update), home)

    final = _cast_like(jax.tree.map(leaf, updates, params, previous), params)
    kept = optax.tree.where(good, params, previous)
    return final, ExpectedImprovementState(kept, new)


def _branch(condition: jax.Array, if_true: Callable[[], PyTree], if_false: Callable[[], PyTree]):
    """`lax.cond`; where the condition is known, only what it asks for, and nothing is compiled."""
    if isinstance(condition, jax.core.Tracer):
        return jax.lax.cond(condition, if_true, if_false)
    return if_true() if condition else if_false()


def _cast_like(tree: PyTree, like: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf, other: jnp.asarray(leaf, jnp.result_type(other)), tree, like)


def coarsest(params: PyTree) -> float:
    """The largest relative rounding error of the parameters' types."""
    return max(float(jnp.finfo(jnp.result_type(p)).eps) for p in jax.tree.leaves(params))
