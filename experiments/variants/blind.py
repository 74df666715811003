"""The rule without a part of what it knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax

from ...curvature import ValueBelief
from ...optimizers import TrustRegion


def doubtful(trust_region: TrustRegion, factor: float) -> TrustRegion:
    """A trust region that takes what the averages say for less certain; with 0, for certain."""
    return _hearing(trust_region, lambda mean, variance: ValueBelief(mean, factor * variance))


def deaf(trust_region: TrustRegion) -> TrustRegion:
    """A trust region to which the averages say nothing of where to aim."""
    return _hearing(trust_region, lambda mean, variance: ValueBelief(0 * mean, 0 * variance))


def _hearing(trust_region: TrustRegion, heard: Callable[..., ValueBelief]) -> TrustRegion:
    def update(state: Any, outcome: Any, observation: Any, belief: Any, evidence: Any, *rest: Any):
        evidence = evidence._replace(
            difference=heard(*evidence.difference), excess=heard(*evidence.excess)
        )
        return trust_region.update(state, outcome, observation, belief, evidence, *rest)

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
