"""A neural ODE that learns oscillations, through Diffrax's default adjoint.

Modeled on Diffrax's example `neural_ode.ipynb`: adabelief(3e-3), 500 steps on the first 10 of 100
times and 500 on all, batches of 32 of 256 series, softplus networks with 2 hidden layers of width
64, Tsit5 with adaptive steps. Here: the first 20 times only, one hidden layer of width 32, and
Bosh3, which compiles faster.
"""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from .equinox_model import arrays, begin, parts
from .program import Program, sample

TIMES = jnp.linspace(0.0, 2.0, 20)
LOOSE = diffrax.PIDController(rtol=1e-3, atol=1e-6)


def _solve(field, start):
    return diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Bosh3(),
        TIMES[0],
        TIMES[-1],
        TIMES[1] - TIMES[0],
        start,
        saveat=diffrax.SaveAt(ts=TIMES),
        stepsize_controller=LOOSE,
    ).ys


class NeuralODE(eqx.Module):
    net: eqx.nn.MLP

    def __init__(self, key):
        self.net = eqx.nn.MLP(2, 2, 32, 1, activation=jax.nn.softplus, key=key)

    def __call__(self, start):
        return _solve(lambda t, y, args: self.net(y), start)


def _oscillate(t, y, args):
    x = y / (1 + y)
    return jnp.stack([x[1], -x[0]])


def theirs(tx, carry, series):
    model, state = carry

    def loss_fn(model):
        return jnp.mean((jax.vmap(model)(series[:, 0]) - series) ** 2)

    loss, grads = eqx.filter_value_and_grad(loss_fn)(model)
    updates, state = tx.update(grads, state)
    return (eqx.apply_updates(model, updates), state), loss


def ours(tx, carry, series):
    model, state = carry

    def loss_fn(model):
        return jnp.mean((jax.vmap(model)(series[:, 0]) - series) ** 2, axis=(1, 2))

    loss, grads = eqx.filter_value_and_grad(lambda model: loss_fn(model).mean())(model)
    value_fn = lambda p: loss_fn(eqx.combine(p, model))  # noqa: E731
    updates, state = tx.update(grads, state, arrays(model), value=loss, value_fn=value_fn)
    return (eqx.apply_updates(model, updates), state), loss


def program() -> Program:
    starts = jax.random.uniform(jax.random.key(5678), (512, 2), minval=-0.6, maxval=1.0)
    series = jax.jit(jax.vmap(lambda start: _solve(_oscillate, start)))(starts)
    train, test = series[:256], series[256:]

    def judge(params, carry):
        model = eqx.combine(params, carry[0])
        return jnp.mean((jax.vmap(model)(test[:, 0]) - test) ** 2)

    return Program(
        project="Diffrax",
        url="https://github.com/patrick-kidger/diffrax/blob/main/examples/neural_ode.ipynb",
        setting="adabelief(3e-3)",
        optimizer=lambda steps: optax.adabelief(3e-3),
        published_steps=1_000,
        steps=500,
        quick=3,
        start=begin(NeuralODE),
        batch=sample(train, 32),
        theirs=theirs,
        ours=ours,
        judge=judge,
        judged="test error, squared",
        parts=parts,
        jit=eqx.filter_jit,
    )
