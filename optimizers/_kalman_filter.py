from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from ..curvature import (
    AxisName,
    BatchStatistics,
    Covariance,
    Differentiation,
    GradientBelief,
    ValueFn,
    correct_gradient,
    exact,
    predict_gradient,
    sketched,
)
from ..curvature._covariance import check_covariance, zero_variance
from ..curvature._derivatives import check_differentiation
from ..curvature._tree import PyTree, all_finite, dot, quadratic_form, size, widen, zeros_like
from ..curvature._validation import check_params
from ._arguments import require_gradient, require_value_fn

Statistics = Literal["sketched", "exact"]


class KalmanFilterState(NamedTuple):
    """State of the gradient filter.

    Attributes:
      count: steps filtered, int32.
      num_rejected: batches rejected because something measured was not finite, int32.
      params: parameters at the last filtered step; the next displacement starts there.
      belief: N(m, P) at these parameters; m like the parameters in float32 or wider, P in the
        structure of the covariance.
      noise: moving average of the gradient variance Σ, uncorrected, in the structure of P.
      gain: K of the last step, in the structure of P.
    """

    count: jax.Array
    num_rejected: jax.Array
    params: PyTree
    belief: GradientBelief
    noise: PyTree
    gain: PyTree

    def metrics(self) -> dict[str, jax.Array]:
        """Scalars for `mekax.optimizers.metrics`, where they are explained."""
        mean, variance = self.belief
        ones = jax.tree.map(jnp.ones_like, mean)
        trace = quadratic_form(variance, ones)
        limits = jnp.finfo(trace.dtype)
        snr = dot(mean, mean) / jnp.maximum(trace, limits.tiny)
        return {
            "gain": quadratic_form(self.gain, ones) / size(mean),
            "gradient_snr": jnp.minimum(snr, limits.max),
            "num_rejected": self.num_rejected,
        }


def init_kalman_filter(params: PyTree, covariance: Covariance) -> KalmanFilterState:
    """Build the state before the first gradient."""
    check_params(params)
    variance = zero_variance(params, covariance)
    # Every leaf is an array of its own: shared ones cannot be donated.
    return KalmanFilterState(
        count=jnp.zeros((), jnp.int32),
        num_rejected=jnp.zeros((), jnp.int32),
        params=zeros_like(params),
        belief=GradientBelief(zeros_like(params, wide=True), variance),
        noise=jax.tree.map(jnp.zeros_like, variance),
        gain=jax.tree.map(jnp.ones_like, variance),
    )


def kalman_filter_step(
    state: KalmanFilterState,
    gradient: PyTree,
    params: PyTree,
    value_fn: ValueFn,
    *,
    statistics: Statistics,
    covariance: Covariance,
    decay: jax.typing.ArrayLike,
    seed: jax.typing.ArrayLike,
    differentiation: Differentiation,
    axis_name: AxisName | None,
) -> tuple[KalmanFilterState, BatchStatistics, jax.Array]:
    """Measure, predict, correct: the new state, the statistics, and whether all is finite."""
    first = state.count == 0
    gradient = widen(gradient)
    displacement = displacement_from(state.params, params, first)
    options = (covariance, differentiation, axis_name)
    if statistics == "exact":
        stats = exact(value_fn, params, displacement, *options)  # pyright: ignore[reportArgumentType]
    else:
        key = jax.random.fold_in(jax.random.key(seed), state.count + state.num_rejected)
        stats = sketched(value_fn, params, displacement, key, *options)
    count = jnp.asarray(optax.safe_increment(state.count))
    noise = optax.tree.update_moment(stats.gradient_variance, state.noise, decay, 1)
    smooth_noise = optax.tree.bias_correction(noise, decay, count)
    predicted = predict_gradient(state.belief, stats.product, stats.product_variance)
    belief, gain = correct_gradient(predicted, gradient, smooth_noise)
    # Where a second derivative does not exist nothing can be transported: start afresh.
    fresh = first | ~all_finite((stats.product, stats.product_variance))
    belief = optax.tree.where(fresh, GradientBelief(gradient, smooth_noise), belief)
    gain = optax.tree.where(fresh, jax.tree.map(jnp.ones_like, gain), gain)
    # The caller's gradient stands for that of the statistics, which is never used and so
    # neither computed nor sent between devices a second time.
    finite = all_finite((gradient, smooth_noise, stats.value, stats.slope))
    new = KalmanFilterState(count, state.num_rejected, params, belief, noise, gain)
    return select_filter(finite, new, state), stats, finite


def select_filter(
    finite: jax.Array, new: KalmanFilterState, old: KalmanFilterState
) -> KalmanFilterState:
    """The new state, or the old one and a batch rejected, in the dtypes of the old one."""
    rejected = old._replace(num_rejected=jnp.asarray(optax.safe_increment(old.num_rejected)))
    return optax.tree.where(finite, optax.tree.cast_like(new, rejected), rejected)


def check_filter_options(
    statistics: str, covariance: str, decay: Any, differentiation: str
) -> None:
    """Raise an error that lists the choices unless the options are among them."""
    check_covariance(covariance)
    check_differentiation(differentiation)
    if statistics not in get_args(Statistics):
        raise ValueError(
            f"mekax: statistics must be 'sketched' or 'exact', got {statistics!r}. Pass 'sketched' "
            "for any value_fn, 'exact' for one made by mekax.curvature.per_example."
        )
    if isinstance(decay, float | int) and not 0 <= decay < 1:
        raise ValueError(
            f"mekax: expected decay to be at least 0 and below 1, got {decay}. Pass 0 for no "
            "smoothing of the variances, 0.99 for an average over about 100 steps."
        )


def displacement_from(previous: PyTree, params: PyTree, first: jax.Array) -> PyTree:
    """Displacement δ = θ_t − θ_{t−1} in float32 or wider, zero at the first step."""
    return jax.tree.map(
        lambda old, new: jnp.where(first, 0, new - old), widen(previous), widen(params)
    )


def scale_by_kalman_filter(
    statistics: Statistics = "sketched",
    covariance: Covariance = "scalar",
    decay: float = 0.99,
    seed: int = 0,
    differentiation: Differentiation = "auto",
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Replace the gradient by the mean of a Kalman filter that follows it along the path.

        predict   m⁻ = m + Bδ,   P⁻ = P + Q         δ: the displacement actually made
        correct   K = P⁻/(P⁻ + Σ),   m = (1 − K) m⁻ + K g,   P = (1 − K)² P⁻ + K² Σ

    Past gradients are transported to the current parameters by Hessian-vector products, so the
    average over steps is not stale, and the gain follows from the measured noise. On a quadratic
    whose Hessian is the same for all examples, m averages all gradients seen: P_t = Σ/(t + 1).
    Put any Optax transformation after it.

    A batch at which the gradient or a statistic is not finite leaves the belief as it was and
    returns its mean, the gradient believed at the last good point; it is counted in `num_rejected`.

    Args:
      statistics: `"sketched"` for any `value_fn`; `"exact"` for one made by
        `mekax.curvature.per_example`.
      covariance: structure of P, Q and Σ: `"scalar"` (the published choice), `"per_leaf"` or
        `"diagonal"`.
      decay: of the bias-corrected moving average that smooths Σ.
      seed: of the ±1 probes of the sketched statistics; the same seed gives the same run.
      differentiation: `"auto"`: forward mode, or, for models without a forward-mode rule,
        differences of gradients; `"forward"`, `"reverse"` (reverse over reverse), `"differences"`.
      axis_name: axis of `shard_map`, `pmap` or `vmap` over which the batch is split into equal
        parts, or None; gradients must be those of the whole batch.

    Returns:
      A transformation whose `update` needs `params` and `value_fn`, a function from parameters to
      the per-example losses of the current batch, shape (n,), or to a scalar (noise-free).

    Raises:
      ValueError, TypeError: for unknown options, missing arguments, parameters that are not real
        floating-point arrays, losses of a wrong shape; each message says what to do.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from mekax.optimizers import scale_by_kalman_filter
      >>> tx = optax.chain(scale_by_kalman_filter(), optax.scale_by_learning_rate(0.1))
      >>> params = jnp.array([1.0])
      >>> state = tx.init(params)
      >>> value_fn = lambda w: 0.5 * (w - jnp.array([-1.0, 1.0])) ** 2
      >>> grads = jax.grad(lambda w: value_fn(w).mean())(params)
      >>> updates, state = tx.update(grads, state, params, value_fn=value_fn)
      >>> round(float(updates[0]), 6)
      -0.1

    Source: Chen et al. (2020), arXiv 2011.04803, section 3.
    """
    check_filter_options(statistics, covariance, decay, differentiation)

    def init_fn(params: PyTree) -> KalmanFilterState:
        return init_kalman_filter(params, covariance)

    def update_fn(updates, state, params=None, *, value_fn=None, grad=None, **extra_args):
        del grad, extra_args
        value_fn = require_value_fn("scale_by_kalman_filter", params, value_fn)
        require_gradient("scale_by_kalman_filter", updates, params)
        state, _, _ = kalman_filter_step(
            state,
            updates,
            params,
            value_fn,
            statistics=statistics,
            covariance=covariance,
            decay=decay,
            seed=seed,
            differentiation=differentiation,
            axis_name=axis_name,
        )
        return optax.tree.cast_like(state.belief.mean, updates), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
