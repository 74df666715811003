"""Gradients of a training with respect to its start, as MAML and learned initializations take."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.optimizers import adameka, meka, scale_by_expected_improvement

X = np.random.default_rng(0).normal(size=(16, 3))
DEAD = X * np.array([0.0, 1.0, 1.0])
MAKERS = {
    "adameka": adameka,
    "meka": lambda: meka(statistics="sketched"),
    "rule": scale_by_expected_improvement,
    "momentum+rule": lambda: optax.chain(optax.trace(0.9), scale_by_expected_improvement()),
}
STARTS = {
    "generic": (X, [0.1, -0.2, 0.3]),
    "a coordinate without gradient": (DEAD, [0.1, -0.2, 0.3]),
    "all-zero parameters": (X, [0.0, 0.0, 0.0]),
}


def loss_after(tx, data, steps=2):
    def loss(start):
        params, state = start, tx.init(start)
        value_fn = lambda p: (jnp.tanh(jnp.asarray(data) @ p) - X.sum(1)) ** 2  # noqa: E731
        for _ in range(steps):
            grads = jax.grad(lambda p: value_fn(p).mean())(params)
            updates, state = tx.update(grads, state, params, value_fn=value_fn)
            params = optax.apply_updates(params, updates)
        return value_fn(params).mean()

    return loss


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("make", MAKERS)
def test_meta_gradients_are_finite_and_right(make, start):
    data, values = STARTS[start]
    loss, params = jax.jit(loss_after(MAKERS[make](), data)), jnp.asarray(values)
    gradient = jax.grad(loss)(params)
    assert np.all(np.isfinite(gradient))
    if start == "all-zero parameters":
        return  # next to which no step leads farther than the parameters are long
    steps = 1e-5 * jnp.eye(3)
    near = jnp.array([(loss(params + d) - loss(params - d)) / 2e-5 for d in steps])
    np.testing.assert_allclose(gradient, near, rtol=1e-3, atol=1e-4)
