"""Latent ODEs for series at irregular times, and recurrent networks in their place.

Y. Rubanova, R. T. Q. Chen and D. Duvenaud, *Latent ODEs for Irregularly-Sampled Time Series*
(2019), arXiv:1907.03907, section 3.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .. import ode
from ..irregular_series import damped_oscillations
from ..models import Recurrent, TanhMLP
from .latent_series import Decoder, latent_series
from .problem import Problem, PyTree, Source

TRAIN, TEST = 2_000, 500

Trajectory = Callable[[ode.Field, PyTree, jax.Array], PyTree]  # (field, y0, times) -> states

fixed_steps = partial(ode.trajectory, substeps=1)


def quick(name: str, source: Source, trajectory: Trajectory = fixed_steps) -> Problem:
    del source  # the data are drawn
    train, test = damped_oscillations(0, TRAIN), damped_oscillations(1, TEST)
    decoder = differential(latent=4, width=32, trajectory=trajectory)
    return latent_series(name, train, test, decoder, latent=4, width=32, batch_size=64, epochs=50)


def recurrent(name: str, source: Source) -> Problem:
    del source
    train, test = damped_oscillations(0, TRAIN), damped_oscillations(1, TEST)
    decoder = gated(latent=4, width=32)
    return latent_series(name, train, test, decoder, latent=4, width=32, batch_size=64, epochs=50)


def large(name: str, source: Source) -> Problem:
    del source
    train, test = (
        damped_oscillations(seed, count, longest=100) for seed, count in ((0, 20_000), (1, TEST))
    )
    decoder = differential(latent=10, width=100)
    return latent_series(
        name, train, test, decoder, latent=10, width=100, batch_size=256, epochs=200
    )


def differential(*, latent: int, width: int, trajectory: Trajectory = fixed_steps) -> Decoder:
    """The path solves dz/dt = f(z), where f is a network."""
    field: Any = TanhMLP((width, width), latent)

    def states(params: PyTree, z0: jax.Array, times: jax.Array) -> jax.Array:
        return trajectory(lambda t, z: field.apply(params, z), z0, times)

    return Decoder(lambda key: field.init(key, jnp.zeros(latent)), states, continuous=True)


def gated(*, latent: int, width: int) -> Decoder:
    """The path is that of a recurrent network, which is told how much time has passed."""
    start: Any = TanhMLP((), width)
    network: Any = Recurrent(width)

    def init(key: jax.Array) -> PyTree:
        of_start, of_network = jax.random.split(key)
        return {
            "start": start.init(of_start, jnp.zeros(latent)),
            "network": network.init(of_network, jnp.zeros((1, 1)), jnp.ones(1, bool)),
        }

    def states(params: PyTree, z0: jax.Array, times: jax.Array) -> jax.Array:
        since = jnp.diff(times, prepend=times[:1])[:, None]
        first = jnp.tanh(start.apply(params["start"], z0))
        return network.apply(params["network"], since, since[:, 0] >= 0, first)

    return Decoder(init, states, continuous=False)
