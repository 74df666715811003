"""A noisy quadratic whose curvatures span three decades: the textbook's bad case.

    ℓ(θ, ξ) = ½ (θ − ξ)ᵀ H (θ − ξ) − ½ ξᵀ H ξ,    H = diag(10⁰ … 10⁻³),    Σ ξ = 0

The losses are shifted by what no θ changes, so their mean over the data is the excess loss
½ θᵀ H θ, which is also what is measured.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ..problem import Problem, PyTree, Source
from .common import deterministic

DIMENSION = 20
CONDITION = 1e3
EXAMPLES = 4096


def noisy(name: str, source: Source) -> Problem:
    del source  # the data are drawn
    curvature = jnp.logspace(0, -np.log10(CONDITION), DIMENSION)
    rng = np.random.default_rng(2020)
    xi = rng.standard_normal((EXAMPLES, DIMENSION))
    data = {"xi": jnp.asarray(xi - xi.mean(axis=0), jnp.float32)}

    def shifted(params: PyTree, batch: PyTree) -> jax.Array:
        return _half_square(params, curvature) - (batch["xi"] * curvature) @ params

    def measure(params: PyTree, batch: PyTree) -> dict[str, jax.Array]:
        return {"loss": jnp.broadcast_to(_half_square(params, curvature), batch["xi"].shape[:1])}

    loss, losses = deterministic(shifted)
    return Problem(
        name=name,
        init=lambda key: 10 * jax.random.normal(key, (DIMENSION,)),
        loss=loss,
        losses=losses,
        measure=measure,
        data=data,
        test={"xi": data["xi"][:1]},  # nothing to generalize to: the excess loss is exact
        batch_size=32,
        epochs=5,
    )


def _half_square(params: jax.Array, curvature: jax.Array) -> jax.Array:
    return 0.5 * jnp.sum(curvature * jnp.square(params))
