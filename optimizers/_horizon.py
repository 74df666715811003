"""The horizon, as far as averages of the iterates reach back: does progress rule, or noise?"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from ..curvature import AxisName, ValueBelief, ValueFn, correct_value, mean_and_variance
from ..curvature._mapped_axis import as_local
from ..curvature._tree import PyTree, finite_scalars, real_dtype, safe_sqrt, widen, zeros_like
from ..curvature._validation import per_example_losses
from ._average import average_weight
from ._observation import branch, cast_like
from ._trust_region import Evidence

_LONG, _SHORT = 5.0, 40.0  # averages over about the last count/5 and count/40 iterates
_MIDDLE = 1 / 3  # of the way from one to the other: like an average over the last tenth
# Where losses are compared: at θ, θ̃, θ̂ and θ̄, as sums of θ, θ̄ and θ̃.
_PLACES = ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1 - _MIDDLE, _MIDDLE), (0.0, 1.0, 0.0))
_SIGNIFICANT = 2.0  # standard deviations of a loss above that of the average
_CERTAIN = 5.0  # the same of a loss at the average above its belief, at two looks in a row
_LARGE = 10.0  # multiples of what the loss usually is away from that of the average
_LOOKS = 20.0  # what looks show is averaged over about the last twentieth of them
_EARLY = 50  # iterates, before which the average is no place to return to


class HorizonState(NamedTuple):
    """Two averages of the iterates, and what is known of the losses on the line through them.

    Attributes:
      count: iterates averaged, int32.
      long: θ̄, over about the last fifth of all iterates.
      short: θ̃, over about the last fortieth.
      difference: D = ⅓ ℓ(θ̃) + ⅔ ℓ(θ̂) − ℓ(θ̄), averaged over about the last twentieth of all
        looks, where θ̂ = θ̄ + ⅓ (θ̃ − θ̄).
      excess: E = ℓ(θ) − ℓ(θ̂), averaged likewise.
      lag: ℓ(θ̄) − ℓ(θ̂), averaged likewise.
      level: belief about ℓ(θ̂), filtered; a variance of 0 before any.
      usual: |ℓ(θ) − ℓ(θ̂)|, averaged: the scale on which a rise is large. No look counts for
        more than ten times it, so that a rise does not become usual before it is certain.
      jump: |ℓ(θ̂) − level| at a look, averaged: the deviation of a loss whose batches show none.
      surprises: looks in a row at which ℓ(θ̂) lay far above what was believed, int32.
    """

    count: jax.Array
    long: PyTree
    short: PyTree
    difference: jax.Array
    excess: jax.Array
    lag: jax.Array
    level: ValueBelief
    usual: jax.Array
    jump: jax.Array
    surprises: jax.Array

    @property
    def average(self) -> PyTree:
        """Where to evaluate: the minimum of the parabola through the three losses, from θ̄ to θ̃."""
        return _between(self, lowest(self.difference, self.lag))

    def metrics(self) -> dict[str, jax.Array]:
        """Scalars for `mekax.optimizers.metrics`, where they are explained."""
        return {
            "average_gap": self.difference,
            "iterate_gap": self.excess,
        }


def init_horizon(params: PyTree) -> HorizonState:
    """Build the state before the first step."""
    dtype = real_dtype(*jax.tree.leaves(params))

    # Every leaf is an array of its own: shared ones cannot be donated.
    return HorizonState(
        count=jnp.zeros((), jnp.int32),
        long=zeros_like(params, wide=True),
        short=zeros_like(params, wide=True),
        difference=jnp.zeros((), dtype),
        excess=jnp.zeros((), dtype),
        lag=jnp.zeros((), dtype),
        level=ValueBelief(jnp.zeros((), dtype), jnp.zeros((), dtype)),
        usual=jnp.zeros((), dtype),
        jump=jnp.zeros((), dtype),
        surprises=jnp.zeros((), jnp.int32),
    )


def look_back(
    value_fn: ValueFn,
    params: PyTree,
    state: HorizonState,
    due: jax.Array,
    finite: jax.Array,
    interval: jax.typing.ArrayLike,
    axis_name: AxisName | None,
) -> tuple[HorizonState, Evidence]:
    """Compare the losses of a batch along the averages and at the iterate where that is due.

        D_i = ⅓ ℓ_i(θ̃) + ⅔ ℓ_i(θ̂) − ℓ_i(θ̄),    E_i = ℓ_i(θ) − ℓ_i(θ̂)
        D ← D + w (mean_i D_i − D),    and E likewise

    with w = 20/(j + 20) after j intervals, and 0 where the batch leads back to the average. The
    point θ̂ = θ̄ + ⅓ (θ̃ − θ̄) stands for an average over the last tenth.

    D < 0: the long average lags behind the shorter ones, and progress rules; D > 0: noise rules
    even in averages. E < 0: the iterate is ahead of the averages, and noise does not matter. At the
    start all averages coincide, and D is 0. Differences are paired by example, so that the variance
    of E, by which a rise is told from noise, is that of what differs.

    A batch that is not `finite` is compared as well: where its losses are finite at the average,
    the iterate is at fault and not the batch. Nothing else is learned of it.
    """
    # All but the averages themselves, which a branch would copy.
    known = state._replace(long=(), short=())
    nothing = jnp.zeros((), jnp.bool_)

    def look() -> tuple[HorizonState, jax.Array, jax.Array]:
        seen = _compare(value_fn, params, state, axis_name)
        new, risen, changed = _learn(known, seen, finite, interval)
        return cast_like(new, known), risen, changed

    new, risen, changed = branch(due, look, lambda: (known, nothing, nothing))
    evidence = Evidence(new.difference, new.excess, risen, changed)
    return new._replace(long=state.long, short=state.short), evidence


def _compare(
    value_fn: ValueFn, params: PyTree, state: HorizonState, axis_name: AxisName | None
) -> tuple[jax.Array, ValueBelief, ValueBelief, jax.Array]:
    """What a batch shows of D, E, the loss at θ̂ and how far it is below that at θ̄."""
    # At the first look, of which nothing is learned, there are no averages yet; it is made so that
    # a loop without `jit` compiles nothing later.
    places = jnp.where(state.count == 0, jnp.eye(3)[:1], jnp.asarray(_PLACES))
    trees = as_local((params, state.long, state.short), axis_name)
    here, short, middle, long = losses_at(value_fn, trees, places)
    difference = (short + 2 * middle) / 3 - long
    seen = jnp.stack((difference, here - middle, middle, long - middle), axis=-1)
    mean, variance = mean_and_variance(seen, axis_name)
    return mean[0], ValueBelief(mean[1], variance[1]), ValueBelief(mean[2], variance[2]), mean[3]


def _learn(
    state: HorizonState,
    seen: tuple[jax.Array, ValueBelief, ValueBelief, jax.Array],
    finite: jax.Array,
    interval: jax.typing.ArrayLike,
) -> tuple[HorizonState, jax.Array, jax.Array]:
    """Take in what a batch shows; also whether the loss has risen, and the problem changed."""
    difference, excess, level, lag = seen
    # At one iterate all averages are the same, and rounding would decide the sign of D.
    begun = state.count > 1
    known = begun & finite & finite_scalars(seen)
    burst = begun & ~finite & jnp.isfinite(level.mean) & ~jnp.isfinite(excess.mean)
    # Not before an earlier look has shown what is usual.
    settled = known & (state.count >= _EARLY) & (state.usual > 0)
    risen = settled & (
        excess.mean > jnp.maximum(_SIGNIFICANT * safe_sqrt(excess.variance), _LARGE * state.usual)
    )
    # A mean loss, or a batch of one, shows no variance of its own.
    shown = jnp.where(level.variance > 0, level.variance, jnp.square(state.jump))
    level = level._replace(variance=shown)
    deviation = safe_sqrt(level.variance + state.level.variance)
    jump = level.mean - state.level.mean
    surprise = settled & (jump > jnp.maximum(_CERTAIN * deviation, state.usual))
    surprises = jnp.where(surprise, state.surprises + 1, 0)
    changed = surprises >= 2
    looks = state.count / interval
    # A look that leads back to the average is left out.
    weight = jnp.where(risen, 0.0, _LOOKS / (looks + _LOOKS))
    away = jnp.abs(excess.mean)
    most = jnp.where(settled, _LARGE * state.usual, away)
    learned = state._replace(
        difference=state.difference + weight * (difference - state.difference),
        excess=state.excess + weight * (excess.mean - state.excess),
        lag=state.lag + weight * (lag - state.lag),
        level=optax.tree.where(surprise, state.level, _filtered(state.level, level)),
        usual=state.usual + weight * (jnp.minimum(away, most) - state.usual),
        jump=state.jump + jnp.where(surprise, 0.0, weight) * (jnp.abs(jump) - state.jump),
        surprises=surprises,
    )
    new = optax.tree.where(known, learned, state)
    afresh = optax.tree.zeros_like(state)._replace(count=state.count)
    return optax.tree.where(changed, afresh, new), burst | (risen & ~changed), changed


def lowest(difference: jax.Array, lag: jax.Array) -> jax.Array:
    """Where between two averages the loss is lowest: at the minimum of the parabola, or at an end.

        1/6 + L/(3 D + 5 L), kept from 0, the long average, to 1, the short one

    Args:
      difference: D, a third of the loss at 1 and two thirds of that at ⅓, less the loss at 0.
      lag: L, the loss at 0 less that at ⅓.

    Returns:
      The place; ⅓ while nothing is known.
    """
    bend = 3 * difference + 5 * lag
    inside = 1 / 6 + lag / jnp.where(bend > 0, bend, 1.0)
    # Where nothing bends, at the end that is lower: 3 D + 2 L is the loss at 1 less that at 0.
    rise = 3 * difference + 2 * lag
    end = jnp.where(rise == 0, _MIDDLE, jnp.where(rise < 0, 1.0, 0.0))
    return jnp.where(bend > 0, jnp.clip(inside, 0.0, 1.0), end)


def _between(state: HorizonState, place: jax.typing.ArrayLike) -> PyTree:
    # The place in the precision of each leaf: that of the losses may be another.
    return jax.tree.map(
        lambda a, b: a + jnp.asarray(place, a.dtype) * (b - a), state.long, state.short
    )


def _filtered(belief: ValueBelief, seen: ValueBelief) -> ValueBelief:
    """Correct a belief by what a batch shows; one of no variance is none yet."""
    corrected, _ = correct_value(belief, seen.mean, seen.variance)
    return optax.tree.where(belief.variance > 0, corrected, seen)


def losses_at(
    value_fn: ValueFn, trees: tuple[PyTree, ...], places: jax.Array
) -> jax.Array | list[jax.Array]:
    """Per-example losses of one batch at weighted sums of trees, a row of weights for each."""
    losses = per_example_losses(value_fn)

    def at(weights: jax.Array) -> jax.Array:
        def point(like: jax.Array, *leaves: jax.Array) -> jax.Array:
            wide = [widen(leaf) for leaf in leaves]
            parts = [jnp.asarray(w, x.dtype) * x for w, x in zip(weights, wide, strict=True)]
            return jnp.asarray(sum(parts), jnp.result_type(like))

        return widen(losses(jax.tree.map(point, trees[0], *trees)))

    if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees)):
        return [at(weights) for weights in places]
    # A loop, so that the model is compiled once and not once for each, with one point at a time.
    return jax.lax.map(at, places)


def follow(
    state: HorizonState,
    params: PyTree,
    average: PyTree,
    good: jax.Array,
    home: jax.Array,
    fresh: jax.Array,
) -> HorizonState:
    """Take an iterate into the averages.

        θ̄ ← θ̄ + 5/(k + 5) (θ − θ̄),    θ̃ ← θ̃ + 40/(k + 40) (θ − θ̃)

    Args:
      state: the averages.
      params: θ.
      average: `state.average`.
      good: whether the iterate is taken in.
      home: whether training returns to `average`, to which both are set; the count goes on.
      fresh: whether the averages start again at θ.
    """
    count = jnp.where(fresh, 0, state.count)
    taken = good & ~home

    def take(mean: PyTree, span: float) -> PyTree:
        weight = average_weight(count, span)
        return jax.tree.map(
            lambda a, p, m: jnp.where(taken, a + weight * (p - a), jnp.where(home, m, a)),
            *(mean, widen(params), average),
        )

    return state._replace(
        count=jnp.where(taken, jnp.asarray(optax.safe_increment(count)), state.count),
        long=take(state.long, _LONG),
        short=take(state.short, _SHORT),
    )
