"""Coupling flows: each layer scales and shifts one coordinate, as the other one says.

Determinant and inverse are cheap by construction, at the price of a restricted architecture.
L. Dinh, J. Sohl-Dickstein and S. Bengio, *Density Estimation Using Real NVP* (2017),
arXiv:1605.08803.
"""

from typing import Any

import jax
import jax.numpy as jnp

from ..models import SmoothMLP
from ..problem import Problem, PyTree, Source
from . import densities
from .flow import Flow, Mapped, density


def eight_gaussians(name: str, source: Source) -> Problem:
    del source  # the data are drawn
    examples = densities.examples(densities.eight_gaussians)
    return density(name, examples, coupling_flow(layers=6, width=32), batch_size=128, epochs=6)


def checkerboard(name: str, source: Source) -> Problem:
    del source
    examples = densities.examples(densities.checkerboard)
    return density(name, examples, coupling_flow(layers=16, width=128), batch_size=512, epochs=500)


def coupling_flow(*, layers: int, width: int) -> Flow:
    """Layers (x₁, x₂) ↦ (x₂, exp(tanh s(x₂)) x₁ + t(x₂)), the coordinates changing places.

    The tanh keeps scales within exp(±1), so that no layer can blow up.

    Args:
      layers: how many.
      width: of the two hidden layers of the networks s and t, which are one.
    """
    network: Any = SmoothMLP((width, width), 2)

    def init(key: jax.Array) -> PyTree:
        keys = jax.random.split(key, layers)
        return jax.vmap(lambda key: network.init(key, jnp.zeros(1)))(keys)

    def conditioned(layer: PyTree, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        log_scale, shift = jnp.split(network.apply(layer, x), 2)
        return jnp.tanh(log_scale), shift

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
