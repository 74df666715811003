"""A trust region that ends with the training."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from ...optimizers import TrustRegion

_LEAST_PART = 1e-3  # of the radius, at the end


def within_budget(trust_region: TrustRegion, steps: int) -> TrustRegion:
    """A trust region whose radius decays linearly over a budget of steps.

    Args:
      trust_region: what learns the radius; its state counts the lines seen in `steps`.
      steps: the budget.
    """

    def update(state: Any, *observed: Any) -> Any:
        new = trust_region.update(state, *observed)
        part = jnp.maximum(1 - (new.steps - 1) / steps, _LEAST_PART)
        return new._replace(radius=part * new.radius)

    return trust_region._replace(update=update)
