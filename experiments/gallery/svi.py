"""Variational inference: a flow that learns a density with two crescents.

Modeled on NumPyro's example `neutra.py`: Adam(0.01), 20,000 steps, `AutoIAFNormal` with two flows
of 10 hidden units, the evidence lower bound of one particle. Here: 16 particles, 1,000 steps.
NumPyro's `SVI.update` cannot hand `value_fn` on: with `adameka`, four lines of Optax take its
place. They give the bound of each particle, so that its noise is measured.
"""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoIAFNormal
from numpyro.infer.svi import SVIState
from numpyro.optim import optax_to_numpyro

from .program import Program

PARTICLES = 16


class Crescents(dist.Distribution):
    support: Any = dist.constraints.real_vector

    def __init__(self):
        super().__init__(event_shape=(2,))

    def sample(self, key, sample_shape=()):
        return jnp.zeros((*sample_shape, 2))  # only the shape matters

    def log_prob(self, value):
        ring = -0.5 * ((jnp.linalg.norm(value, axis=-1) - 2) / 0.4) ** 2
        sides = -0.5 * ((value[..., :1] + jnp.array([-2.0, 2.0])) / 0.6) ** 2
        return ring + jax.scipy.special.logsumexp(sides, axis=-1)


def model():
    numpyro.sample("x", Crescents())


ELBO: Any = Trace_ELBO()
GUIDE = AutoIAFNormal(model, num_flows=2, hidden_dims=[10, 10])


@lru_cache(maxsize=4)
def _svi(tx):
    svi = SVI(model, GUIDE, optax_to_numpyro(tx), Trace_ELBO(num_particles=PARTICLES))
    svi.init(jax.random.key(0))  # or it would not know how to constrain the parameters
    return svi


def theirs(tx, carry, key):
    params, state = carry
    svi_state = SVIState((0, (params, state)), None, key)
    svi_state, loss = _svi(tx).update(svi_state)
    _, (params, state) = svi_state.optim_state
    return (params, state), loss


def ours(tx, carry, key):
    params, state = carry
    value_fn = lambda p: jax.vmap(lambda k: ELBO.loss(k, p, model, GUIDE))(  # noqa: E731
        jax.random.split(key, PARTICLES)
    )
    loss, grads = jax.value_and_grad(lambda p: value_fn(p).mean())(params)
    updates, state = tx.update(grads, state, params, value=loss, value_fn=value_fn)
    return (optax.apply_updates(params, updates), state), loss


def _start(tx, key):
    _, (params, state) = _svi(tx).init(key).optim_state
    return params, state


def _judge(params, carry):
    return Trace_ELBO(num_particles=2_000).loss(jax.random.key(0), params, model, GUIDE)


def program() -> Program:
    return Program(
        project="NumPyro",
        url="https://github.com/pyro-ppl/numpyro/blob/master/examples/neutra.py",
        setting="Adam(0.01)",
        optimizer=lambda steps: optax.adam(0.01),
        published_steps=20_000,
        steps=1_000,
        quick=10,
        start=_start,
        batch=lambda key: key,
        theirs=theirs,
        ours=ours,
        judge=_judge,
        judged="negative evidence lower bound, nats",
    )
