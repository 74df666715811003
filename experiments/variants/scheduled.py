"""Baselines: a direction, and a learning rate on a schedule, which the metrics tell."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class ScheduledState(NamedTuple):
    """State of `scheduled`: steps done, and the step size of the last."""

    count: jax.Array
    step_size: jax.Array

    def metrics(self) -> dict[str, jax.Array]:
        """What `mekax.optimizers.metrics` reads."""
        return {"step_size": self.step_size}


def scheduled(
    direction: optax.GradientTransformation,
    learning_rate: jax.typing.ArrayLike,
    schedule: jax.typing.ArrayLike,
    steps: int,
) -> optax.GradientTransformationExtraArgs:
    """Follow a direction with a learning rate that may be traced: one program serves all of them.

    Args:
      direction: such as `optax.scale_by_adam()`.
      learning_rate: of the first step.
      schedule: 0 constant, 1 linear to 0, 2 cosine to 0.
      steps: at which the schedule ends.

    Example:
      >>> tx = scheduled(optax.identity(), 0.5, 1, steps=10)
      >>> state = tx.init(jnp.ones(()))
      >>> for _ in range(3):
      ...     updates, state = tx.update(jnp.ones(()), state)
      >>> round(float(updates), 3)
      -0.4
    """

    def init_fn(params: Any) -> ScheduledState:
        del params
        return ScheduledState(jnp.zeros((), jnp.int32), jnp.zeros(()))

    def update_fn(updates, state, params=None):
        del params
        part = state.count / steps
        factors = jnp.stack([jnp.ones_like(part), 1 - part, 0.5 * (1 + jnp.cos(jnp.pi * part))])
        step_size = jnp.asarray(learning_rate * factors[jnp.int32(schedule)])
        updates = jax.tree.map(lambda u: jnp.asarray(-step_size, u.dtype) * u, updates)
        return updates, ScheduledState(jnp.asarray(optax.safe_increment(state.count)), step_size)

    rate = optax.GradientTransformation(init_fn, update_fn)
    return optax.with_extra_args_support(optax.chain(direction, rate))
