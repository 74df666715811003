from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..curvature._tree import PyTree, widen
from ._metrics import metrics

Criterion = Callable[[Mapping[str, jax.Array]], jax.Array]


class WarmStartState(NamedTuple):
    """State of `warm_start`.

    Attributes:
      count: steps made, int32.
      adaptive: whether the switch has fired, bool.
      inner: state of the adaptive transformation, which runs from step 0.
    """

    count: jax.Array
    adaptive: jax.Array
    inner: PyTree

    def metrics(self) -> dict[str, jax.Array]:
        """Scalars for `mekax.optimizers.metrics`, where they are explained."""
        return {"phase": jnp.asarray(self.adaptive, jnp.float32)}


def warm_start(
    learning_rate: optax.ScalarOrSchedule,
    until: jax.typing.ArrayLike | Criterion,
    adaptive: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """Make fixed steps first, then switch to an adaptive rule whose filters are warm by then.

        updates_t = −η_t · (incoming updates)      before the switch
                  = adaptive(incoming updates)     after it

    Adaptive steps from the start win early and may lose late; fixed steps first, then the
    switch, end best in the publication. The adaptive transformation sees every step, also those
    it did not choose: it takes displacements from the parameters themselves. Around `meka()` the
    fixed phase is plain SGD; after a direction, as in
    `optax.chain(scale_by_kalman_filter(), warm_start(0.1, 500, scale_by_expected_improvement()))`,
    it is a fixed step along that direction.

    Args:
      learning_rate: η, a number or any Optax schedule, of the fixed phase.
      until: the number of fixed steps, also as an array; or a criterion, a function from
        `metrics(inner state)` to a boolean, that fires the switch for good, for example
        `lambda m: m["snr"] < 1.0`; static for `optax.inject_hyperparams`.
      adaptive: the transformation to switch to.

    Returns:
      A transformation that passes all extra arguments on to `adaptive`.

    Raises:
      ValueError: if `until` is a negative number.
      TypeError: if `until` is neither an integer nor callable.

    Example:
      >>> import jax.numpy as jnp
      >>> from mekax.optimizers import meka, warm_start
      >>> tx = warm_start(0.25, until=1, adaptive=meka())
      >>> params = jnp.array([1.0])
      >>> value_fn = lambda w: jnp.sum(w**2)
      >>> updates, state = tx.update(2 * params, tx.init(params), params, value_fn=value_fn)
      >>> updates.tolist(), bool(state.adaptive)
      ([-0.5], False)

    Source: Chen et al. (2020), arXiv 2011.04803, section 6.
    """
    if not callable(until):
        if not _is_integer(until):
            raise TypeError(
                "mekax: warm_start expected until to be a number of steps or a criterion "
                f"metrics -> bool, got {until!r}. Pass, for example, until=500."
            )
        if isinstance(until, int) and until < 0:
            raise ValueError(
                f"mekax: warm_start expected until to be at least 0, got {until}. "
                "Pass the number of fixed steps."
            )

    def init_fn(params: PyTree) -> WarmStartState:
        return WarmStartState(
            jnp.zeros((), jnp.int32), jnp.zeros((), jnp.bool_), adaptive.init(params)
        )

    def update_fn(updates, state, params=None, **extra_args):
        chosen, inner = adaptive.update(updates, state.inner, params, **extra_args)
        fired = _ask(until, metrics(inner)) if callable(until) else state.count >= until
        switched = state.adaptive | jnp.asarray(fired, jnp.bool_)
        rate = jnp.asarray(learning_rate(state.count) if callable(learning_rate) else learning_rate)
        fixed = jax.tree.map(
            lambda wide, u: (-rate * wide).astype(u.dtype), widen(updates), updates
        )
        count = jnp.asarray(optax.safe_increment(state.count))
        return optax.tree.where(switched, chosen, fixed), WarmStartState(count, switched, inner)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _ask(criterion: Criterion, known: Mapping[str, jax.Array]) -> jax.Array:
    """What the criterion says of the metrics."""
    try:
        return criterion(known)
    except KeyError as error:
        raise KeyError(
            "mekax: warm_start expected until to ask for metrics of the adaptive transformation, "
            f"got {error}. It has: {', '.join(sorted(known)) or 'none'}."
        ) from error


def _is_integer(number: object) -> bool:
    """Whether this is an integer scalar; traced, where `optax.inject_hyperparams` makes it so."""
    return (
        isinstance(number, int | np.integer | np.ndarray | jax.Array)
        and not isinstance(number, bool)
        and jnp.ndim(number) == 0
        and jnp.issubdtype(jnp.result_type(number), jnp.integer)
    )
