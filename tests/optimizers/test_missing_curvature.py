"""Losses whose second derivative is NaN, infinite or 0 where training starts: it goes on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.optimizers import adameka, meka, metrics

X = jax.random.normal(jax.random.key(0), (64, 5))
SHIFTS = 0.1 * jax.random.normal(jax.random.key(1), (64, 3))


def power_of_units(params):
    """relu(x)^1.5: its second derivative at a unit that is off is 0^−½ · 0."""
    hidden = jnp.power(jax.nn.relu(X @ params["w"]), 1.5)
    return (hidden @ params["v"] - jnp.abs(X).sum(1)) ** 2


def eigenvalues(matrix):
    """Eigenvalues that are equal at the start, between which the second derivative divides."""
    symmetric = 0.5 * (matrix + matrix.T)
    return jnp.sum((jnp.linalg.eigvalsh(symmetric) - jnp.array([1.0, 2.0, 4.0]) - SHIFTS) ** 2, 1)


def sorted_entries(w):
    return jnp.sum((jnp.sort(w) - jnp.array([1.0, 2.0, 4.0]) - SHIFTS) ** 2, axis=1)


def rounded(w):
    """Weights on a grid, with a gradient that is passed straight through."""
    on_grid = w + jax.lax.stop_gradient(jnp.round(8 * w) / 8 - w)
    return (X @ on_grid - X.sum(1)) ** 2


KEY = jax.random.key(0)
PROBLEMS = {
    "power below 2 of units that are off": (
        power_of_units,
        {"w": jax.random.normal(KEY, (5, 16)), "v": jax.random.normal(KEY, (16,))},
        0.1,
    ),
    "equal eigenvalues": (eigenvalues, jnp.eye(3), 0.1),
    "sort of ties": (sorted_entries, jnp.zeros(3), 0.1),
    "round with a straight-through gradient": (rounded, jnp.zeros(5), 0.1),
}


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("make", [adameka, meka])
def test_training_goes_on(make, problem):
    losses, params, part = PROBLEMS[problem]
    tx = make()

    def step(carry, _):
        params, state = carry
        grads = jax.grad(lambda p: losses(p).mean())(params)
        updates, state = tx.update(grads, state, params, grad=grads, value_fn=losses)
        return (optax.apply_updates(params, updates), state), losses(params).mean()

    run = jax.jit(lambda c: jax.lax.scan(step, c, length=80))
    (params, state), values = run((params, tx.init(params)))
    assert np.all(np.isfinite(values))
    assert losses(params).mean() < part * values[0]
    assert metrics(state)["num_rejected"] == 0
