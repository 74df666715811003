"""An acquisition that looks several steps ahead."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ...curvature import LineBelief


def look_ahead(steps: int) -> Callable[[LineBelief, jax.Array], jax.Array]:
    """Expected decrease after several steps of one size on the noisy quadratic of the line.

    With step size α = −L/s, ρ = αh and slope variance p, the mean loss above the minimum after N
    steps is, in closed form (Schaul et al. 2013, arXiv 1206.1106; Wu et al. 2018,
    arXiv 1803.02021),

        E = ½ (s²/h) (1 − ρ)^{2N} + ½ h α² p (1 − (1 − ρ)^{2N}) / (1 − (1 − ρ)²)
    """

    def utility(belief: LineBelief, length: jax.Array) -> jax.Array:
        descent = jnp.maximum(-belief.slope, 1e-30)
        curvature = jnp.maximum(jnp.abs(belief.curvature), 1e-30)
        step_size = length / descent
        contraction = jnp.square(1 - step_size * curvature)
        terms = sum(contraction**k for k in range(steps))  # the quotient, also where it is 0/0
        noise = curvature * step_size**2 * belief.slope_variance * terms
        return -0.5 * (descent**2 / curvature * contraction**steps + noise)

    return utility
