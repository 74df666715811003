"""A neural CDE that tells the sense of rotation of spirals, through Diffrax's default adjoint.

Modeled on Diffrax's example `neural_cde.ipynb`: adam(1e-2), 20 steps, batches of 32 of 256 spirals
with 100 times each, hidden state of 8, softplus networks of width 128, Tsit5. Here: 30 times, width
32, Bosh3, which compiles faster, and 40 steps.
"""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from .equinox_model import begin, entropy, ours, parts, theirs
from .program import Program, sample

HIDDEN, WIDTH, TIMES = 8, 32, jnp.linspace(0.0, 4 * jnp.pi, 30)
LOOSE = diffrax.PIDController(rtol=1e-3, atol=1e-6)


class NeuralCDE(eqx.Module):
    initial: eqx.nn.MLP
    field: eqx.nn.MLP
    readout: eqx.nn.Linear

    def __init__(self, key):
        first, second, third = jax.random.split(key, 3)
        self.initial = eqx.nn.MLP(3, HIDDEN, WIDTH, 1, key=first)
        options = {"activation": jax.nn.softplus, "final_activation": jnp.tanh}
        self.field = eqx.nn.MLP(HIDDEN, 3 * HIDDEN, WIDTH, 1, key=second, **options)
        self.readout = eqx.nn.Linear(HIDDEN, "scalar", key=third)

    def __call__(self, path):
        control = diffrax.CubicInterpolation(TIMES, path)
        field = diffrax.ControlTerm(lambda t, y, _: self.field(y).reshape(HIDDEN, 3), control)
        hidden: Any = diffrax.diffeqsolve(
            field.to_ode(),
            diffrax.Bosh3(),
            TIMES[0],
            TIMES[-1],
            None,
            self.initial(control.evaluate(TIMES[0])),
            stepsize_controller=LOOSE,
        ).ys
        return self.readout(hidden[-1])


def _spirals(key, count):
    """Interpolated paths of time and two coordinates; label 1 where the second is reversed."""
    angles = jax.random.uniform(key, (count, 1), maxval=2 * jnp.pi) - 2 * TIMES
    radius, label = jnp.exp(-0.3 * TIMES), jnp.arange(count) % 2
    x, y = radius * jnp.cos(angles), radius * jnp.sin(angles)
    times = jnp.broadcast_to(TIMES, x.shape)
    points = jnp.stack([times, jnp.where(label[:, None] == 1, -x, x), y], axis=-1)
    return jax.vmap(diffrax.backward_hermite_coefficients)(times, points), label


def program() -> Program:
    train, (path, label) = (_spirals(jax.random.key(seed), 256) for seed in (0, 1))

    return Program(
        project="Diffrax",
        url="https://github.com/patrick-kidger/diffrax/blob/main/examples/neural_cde.ipynb",
        setting="adam(1e-2)",
        optimizer=lambda steps: optax.adam(1e-2),
        published_steps=20,
        steps=40,
        quick=3,
        start=begin(NeuralCDE),
        batch=sample(train, 32),
        theirs=theirs,
        ours=ours,
        judge=entropy(path, label),
        judged="test entropy, nats",
        parts=parts,
        jit=eqx.filter_jit,
    )
