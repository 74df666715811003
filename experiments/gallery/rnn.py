"""A recurrent network that tells the sense of rotation of spirals.

Modeled on Equinox's example `train_rnn.ipynb`, at its size: adam(3e-3), 200 steps, batches of 32 of
10,000 spirals with 16 points each, a GRU with a state of 16.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from .equinox_model import begin, entropy, ours, parts, theirs
from .program import Program, sample


class RNN(eqx.Module):
    cell: eqx.nn.GRUCell
    readout: eqx.nn.Linear

    def __init__(self, key):
        first, second = jax.random.split(key)
        self.cell = eqx.nn.GRUCell(2, 16, key=first)
        self.readout = eqx.nn.Linear(16, "scalar", key=second)

    def __call__(self, points):
        state, _ = jax.lax.scan(lambda h, x: (self.cell(x, h), None), jnp.zeros(16), points)
        return self.readout(state)


def _spirals(key, count):
    times, label = jnp.linspace(0.0, 2 * jnp.pi, 16), jnp.arange(count) % 2
    angles = times + jax.random.uniform(key, (count, 1), maxval=2 * jnp.pi)
    sign = 2.0 * label[:, None] - 1
    return jnp.stack([sign * jnp.sin(angles), jnp.cos(angles)], -1) / (1 + times[:, None]), label


def program() -> Program:
    train, (points, label) = _spirals(jax.random.key(0), 10_000), _spirals(jax.random.key(1), 2_000)

    return Program(
        project="Equinox",
        url="https://github.com/patrick-kidger/equinox/blob/main/examples/train_rnn.ipynb",
        setting="adam(3e-3)",
        optimizer=lambda steps: optax.adam(3e-3),
        published_steps=200,
        steps=200,
        quick=10,
        start=begin(RNN),
        batch=sample(train, 32),
        theirs=theirs,
        ours=ours,
        judge=entropy(points, label),
        judged="test entropy, nats",
        parts=parts,
        jit=eqx.filter_jit,
    )
