"""The rule without a part of what it knows."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax

from ...optimizers import TrustRegion


def deaf(trust_region: TrustRegion) -> TrustRegion:
    """A trust region to which the averages say nothing of where to aim."""

    def update(state: Any, outcome: Any, seen: Any, belief: Any, evidence: Any, *rest: Any):
        evidence = evidence._replace(difference=0 * evidence.difference, excess=0 * evidence.excess)
        return trust_region.update(state, outcome, seen, belief, evidence, *rest)

    return trust_region._replace(update=update)


def of_mean_loss(
    tx: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """A transformation that sees the mean of the losses alone, and so no variance of any kind."""

    def update(updates, state, params=None, *, value_fn=None, **extra_args):
        assert value_fn is not None  # experiments always have it
        return tx.update(
            updates, state, params, value_fn=lambda p: jnp.mean(value_fn(p)), **extra_args
        )

    return optax.GradientTransformationExtraArgs(tx.init, update)
