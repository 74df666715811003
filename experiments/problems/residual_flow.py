"""Residual flows: x ↦ x + g(x) is invertible if g contracts, whatever else g is.

R. T. Q. Chen, J. Behrmann, D. Duvenaud and J.-H. Jacobsen, *Residual Flows for Invertible
Generative Modeling* (2019), arXiv:1906.02735.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .. import data, solvers
from ..models import SmoothMLP, lipswish
from ..problem import Problem, PyTree, Source
from . import densities
from .flow import Flow, Mapped, density

BOUND = 0.9  # of the Lipschitz constants
TERMS = 20  # of the power series of a logarithm, at most


def eight_gaussians(name: str, source: Source, *, randomized: bool = True) -> Problem:
    del source  # the data are drawn
    flow = residual_flow(blocks=8, width=32, randomized=randomized)
    examples = densities.examples(densities.eight_gaussians)
    return density(name, examples, flow, batch_size=128, epochs=6)


exact = partial(eight_gaussians, randomized=False)


def checkerboard(name: str, source: Source) -> Problem:
    del source
    flow = residual_flow(blocks=50, width=128)
    examples = densities.examples(densities.checkerboard)
    return density(name, examples, flow, batch_size=512, epochs=500)


def table(name: str, source: Source) -> Problem:
    """The density of measurements of cells."""
    del source  # the data are built in
    examples = data.cells()
    flow = residual_flow(blocks=8, width=32, size=examples[0].shape[1])
    return density(name, examples, flow, batch_size=64, epochs=60)


def residual_flow(*, blocks: int, width: int, size: int = 2, randomized: bool = True) -> Flow:
    """Blocks x ↦ exp(a) x + b, x ↦ x + g(x), where g is a network that contracts.

    Args:
      blocks: how many.
      width: of the two hidden layers of g.
      size: d of the points, 2 in the plane.
      randomized: whether determinants are estimated while training, by a random number of terms
        of their power series; otherwise they are exact, by d derivatives, which in few dimensions
        costs less.
    """
    network: Any = SmoothMLP((width, width), size, lipswish)

    def init(key: jax.Array) -> PyTree:
        keys = jax.random.split(key, blocks)
        return {
            "network": jax.vmap(lambda key: network.init(key, jnp.zeros(size)))(keys),
            "log_scale": jnp.zeros((blocks, size)),
            "shift": jnp.zeros((blocks, size)),
        }

    def residual(block: PyTree) -> Callable[[jax.Array], jax.Array]:
        return lambda x: network.apply(block["network"], x)

    def mapped(params: PyTree, x: jax.Array) -> tuple[jax.Array, PyTree, jax.Array]:
        """The image of x, the parameters made to contract, and what went into every network."""

        def through(x: jax.Array, block: PyTree) -> tuple[jax.Array, jax.Array]:
            x = jnp.exp(block["log_scale"]) * x + block["shift"]
            return x + residual(block)(x), x

        params = _contracting(params)
        z, inputs = jax.lax.scan(through, x, params)
        return z, params, inputs

    def forward(params: PyTree, x: jax.Array) -> Mapped:
        z, params, inputs = mapped(params, x)
        each = jax.vmap(lambda block, x: solvers.log_determinant(residual(block), x))
        return z, each(params, inputs).sum() + params["log_scale"].sum()

    def estimate(params: PyTree, x: jax.Array, key: jax.Array) -> Mapped:
        # All blocks' power series at once: a short sequence of large operations.
        z, params, inputs = mapped(params, x)
        each = jax.vmap(
            lambda block, x, key: solvers.estimated_log_determinant(residual(block), x, key, TERMS)
        )
        terms = each(params, inputs, jax.random.split(key, blocks))
        return z, terms.sum() + params["log_scale"].sum()

    def inverse(params: PyTree, z: jax.Array) -> jax.Array:
        def back(x: jax.Array, block: PyTree) -> tuple[jax.Array, None]:
            x = solvers.invert(residual(block), x)
            return (x - block["shift"]) * jnp.exp(-block["log_scale"]), None

        return jax.lax.scan(back, z, _contracting(params), reverse=True)[0]

    return Flow(
        init,
        forward,
        inverse,
        estimate if randomized else lambda params, x, key: forward(params, x),
    )


def _contracting(params: PyTree) -> PyTree:
    """The matrices scaled down so that a network's product is within the bound."""
    matrices = [leaf for leaf in jax.tree.leaves(params["network"]) if leaf.ndim == 3]
    share = BOUND ** (1 / len(matrices))
    contract = jax.vmap(lambda matrix: solvers.contracted(matrix, share))
    network = jax.tree.map(
        lambda leaf: contract(leaf) if leaf.ndim == 3 else leaf, params["network"]
    )
    return {**params, "network": network}
