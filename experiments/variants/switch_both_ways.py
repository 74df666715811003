"""A switch between fixed and adaptive steps that may go back."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from ...optimizers import metrics


def switch_both_ways(
    learning_rate: float,
    criterion: Callable[[Mapping[str, jax.Array]], jax.Array],
    adaptive: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """Adaptive steps where a criterion on the metrics holds, fixed ones where it does not."""

    def update_fn(updates, state, params=None, **extra_args):
        chosen, state = adaptive.update(updates, state, params, **extra_args)
        holds = criterion(metrics(state))
        fixed = jax.tree.map(lambda u: -learning_rate * u, updates)
        return jax.tree.map(lambda a, b: jnp.where(holds, a, b), chosen, fixed), state

    return optax.GradientTransformationExtraArgs(adaptive.init, update_fn)
