"""The step sizes of `adameka` multiplied, without its noticing."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ...optimizers import adameka, metrics


class TwinState(NamedTuple):
    """State of `replayed`: parameters and optimizer of the twin, and the direction."""

    params: Any
    twin: Any
    direction: Any


def replayed(multiple: jax.typing.ArrayLike) -> optax.GradientTransformationExtraArgs:
    """Adam's direction, with the step sizes that `adameka` chooses when left alone, multiplied.

    With a multiple of 1 it is `adameka`. The step sizes are those of a twin that trains undisturbed
    on the same batches: a factor on the updates themselves would stop its adaptation, and a loop
    that knew of the factor would undo it.
    """
    ours, adam = adameka(), optax.scale_by_adam()

    def init_fn(params: Any) -> TwinState:
        return TwinState(jax.tree.map(jnp.array, params), ours.init(params), adam.init(params))

    def update_fn(updates, state, params=None, *, value_fn=None, **extra_args):
        assert value_fn is not None
        del params, extra_args
        value, grads = jax.value_and_grad(lambda p: jnp.mean(value_fn(p)))(state.params)
        moves, twin = ours.update(
            grads, state.twin, state.params, value=value, grad=grads, value_fn=value_fn
        )
        rate = multiple * metrics(twin)["step_size"]
        direction, along = adam.update(updates, state.direction)
        moved = optax.apply_updates(state.params, moves)
        return jax.tree.map(lambda d: -rate * d, direction), TwinState(moved, twin, along)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
