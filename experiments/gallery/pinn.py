"""A physics-informed network for Burgers' equation.

    ∂u/∂t + u ∂u/∂x = 0.01/π ∂²u/∂x²,    u(x, 0) = −sin(πx),    u(±1, t) = 0

Modeled on DeepXDE's example `Burgers.py`: adam(1e-3), 15,000 steps, then L-BFGS; at every step
all of 2,540 points inside, 80 on the boundary and 160 at the beginning; 3 tanh layers of width 20.
Here: the phase of Adam, 500 points inside, 2,000 steps. The loss has no noise: it is handed to
`adameka` as a scalar.
"""

import jax
import jax.numpy as jnp
import optax

from .program import Program, begin

WIDTHS, VISCOSITY = (2, 20, 20, 20, 1), 0.01 / jnp.pi


def _init(key):
    layers = zip(jax.random.split(key, 4), WIDTHS[:-1], WIDTHS[1:], strict=True)
    glorot = jax.nn.initializers.glorot_normal()
    return [(glorot(key, (m, n)), jnp.zeros(n)) for key, m, n in layers]


def _field(params, x, t):
    h = jnp.stack([x, t])
    for weight, bias in params[:-1]:
        h = jnp.tanh(h @ weight + bias)
    return (h @ params[-1][0] + params[-1][1])[0]


def _residual(params, x, t):
    slope = jax.grad(_field, 1)
    bend = jax.grad(slope, 1)(params, x, t)
    change = jax.grad(_field, 2)(params, x, t) + _field(params, x, t) * slope(params, x, t)
    return change - VISCOSITY * bend


def _misfit(params, points):
    """Mean squares of the residual, the boundary values and the initial values, added."""
    (x, t), (edge, time), start = points
    over = (None, 0, 0)
    inside = jax.vmap(_residual, over)(params, x, t)
    boundary = jax.vmap(_field, over)(params, edge, time)
    initial = jax.vmap(_field, (None, 0, None))(params, start, 0.0) + jnp.sin(jnp.pi * start)
    return jnp.mean(inside**2) + jnp.mean(boundary**2) + jnp.mean(initial**2)


def theirs(tx, carry, points):
    params, state = carry

    def loss_fn(params):
        return _misfit(params, points)

    loss, grads = jax.value_and_grad(loss_fn)(params)
    updates, state = tx.update(grads, state)
    return (optax.apply_updates(params, updates), state), loss


def ours(tx, carry, points):
    params, state = carry

    def loss_fn(params):
        return _misfit(params, points)

    loss, grads = jax.value_and_grad(loss_fn)(params)
    updates, state = tx.update(grads, state, params, value=loss, value_fn=loss_fn)
    return (optax.apply_updates(params, updates), state), loss


def program() -> Program:
    a, b, c = jax.random.split(jax.random.key(0), 3)
    inside = jax.random.uniform(a, (2, 500), minval=jnp.array([[-1.0], [0.0]]))
    edge = jnp.where(jnp.arange(80) % 2, 1.0, -1.0), jax.random.uniform(b, (80,))
    points = (inside[0], inside[1]), edge, jax.random.uniform(c, (160,), minval=-1.0)
    return Program(
        project="DeepXDE",
        url="https://github.com/lululxvi/deepxde/blob/master/examples/pinn_forward/Burgers.py",
        setting="adam(1e-3)",
        optimizer=lambda steps: optax.adam(1e-3),
        published_steps=15_000,
        steps=2_000,
        quick=10,
        start=begin(_init),
        batch=lambda key: points,
        theirs=theirs,
        ours=ours,
        judge=lambda params, carry: _misfit(params, points),
        judged="train loss",
    )
