"""Coupling flows: each layer scales and shifts one coordinate, as the other one says.

Determinant and inverse are cheap by construction, at the price of a restricted architecture.
L. Dinh, J. Sohl-Dickstein and S. Bengio, *Density Estimation Using Real NVP* (2017),
arXiv:1605.08803.
"""

from typing import cast

import jax
import jax.numpy as jnp

from .. import densities
from ..models import Coupling
from .flow import Flow, Mapped, density
from .problem import Problem, PyTree, Source


def eight_gaussians(name: str, source: Source) -> Problem:
    del source  # the data are drawn
    flow = coupling_flow(layers=6, width=32)
    return density(name, densities.eight_gaussians, flow, batch_size=128, epochs=6)


def checkerboard(name: str, source: Source) -> Problem:
    del source
    flow = coupling_flow(layers=16, width=128)
    return density(name, densities.checkerboard, flow, batch_size=512, epochs=500)


def coupling_flow(*, layers: int, width: int) -> Flow:
    """Layers (x₁, x₂) ↦ (x₂, exp(s(x₂)) x₁ + t(x₂)), the coordinates changing places.

    Args:
      layers: how many.
      width: of the two hidden layers of the networks s and t, which are one.
    """
    network = Coupling((width, width), size=1)

    def init(key: jax.Array) -> PyTree:
        keys = jax.random.split(key, layers)
        return jax.vmap(lambda key: network.init(key, jnp.zeros(1)))(keys)

    def conditioned(layer: PyTree, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return cast(tuple[jax.Array, jax.Array], network.apply(layer, x))

    def forward(params: PyTree, x: jax.Array) -> Mapped:
        def through(x: jax.Array, layer: PyTree) -> Mapped:
            log_scale, shift = conditioned(layer, x[1:])
            changed = jnp.exp(log_scale) * x[:1] + shift
            return jnp.concatenate([x[1:], changed]), log_scale.sum()

        z, log_scales = jax.lax.scan(through, x, params)
        return z, log_scales.sum()

    def inverse(params: PyTree, z: jax.Array) -> jax.Array:
        def back(x: jax.Array, layer: PyTree) -> tuple[jax.Array, None]:
            log_scale, shift = conditioned(layer, x[:1])
            changed = (x[1:] - shift) * jnp.exp(-log_scale)
            return jnp.concatenate([changed, x[:1]]), None

        return jax.lax.scan(back, z, params, reverse=True)[0]

    return Flow(init, forward, inverse, lambda params, x, key: forward(params, x))
