"""The adapter for Flax NNX."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.optimizers import meka, metrics, nnx_value_fn

nnx = pytest.importorskip("flax.nnx")


class Count(nnx.Variable):
    pass


class Net(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(3, 1, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.calls = Count(jnp.zeros((), jnp.int32))

    def __call__(self, x):
        self.calls[...] += 1
        return self.linear(self.dropout(x))[:, 0]


X = jnp.arange(12.0).reshape(4, 3)
Y = jnp.array([1.0, -1.0, 0.5, 2.0])


def losses(model, x, y):
    return (model(x) - y) ** 2


def test_one_dropout_mask_in_the_gradient_and_in_every_evaluation():
    model = Net(nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)
    value_fn = nnx_value_fn(model, losses, X, Y)
    before = value_fn(params)
    grads = nnx.grad(lambda model: losses(model, X, Y).mean())(model)  # counts on
    np.testing.assert_array_equal(value_fn(params), before)
    expected = jax.grad(lambda p: value_fn(p).mean())(nnx.as_pure(params))
    jax.tree.map(np.testing.assert_array_equal, nnx.as_pure(grads), expected)
    later = nnx_value_fn(model, losses, X, Y)
    assert (later(params) != before).any()


def test_only_the_gradient_changes_the_model():
    model = Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, meka(), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        value_fn = nnx_value_fn(model, losses, X, Y)
        grads = nnx.grad(lambda model: losses(model, X, Y).mean())(model)
        optimizer.update(model, grads, value_fn=value_fn)
        return metrics(nnx.as_pure(optimizer.opt_state))

    for _ in range(3):
        known = step(model, optimizer)
    assert int(model.calls[...]) == 3
    assert int(optimizer.step[...]) == 3
    assert float(known["step_size"]) > 0


def test_equals_the_plain_loop():
    model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, meka(), wrt=nnx.Param)
    tx, params = meka(), {"kernel": model.kernel[...], "bias": model.bias[...]}
    state = tx.init(params)

    @nnx.jit
    def nnx_step(model, optimizer):
        grads = nnx.grad(lambda model: losses(model).mean())(model)
        optimizer.update(model, grads, value_fn=nnx_value_fn(model, losses))

    def losses(model):
        return (model(X)[:, 0] - Y) ** 2

    @jax.jit
    def plain_step(params, state):
        grads = jax.grad(lambda p: plain_losses(p).mean())(params)
        updates, state = tx.update(grads, state, params, value_fn=plain_losses)
        return optax.apply_updates(params, updates), state

    def plain_losses(p):
        return ((X @ p["kernel"] + p["bias"])[:, 0] - Y) ** 2

    for _ in range(3):
        nnx_step(model, optimizer)
        params, state = plain_step(params, state)
    np.testing.assert_allclose(model.kernel[...], params["kernel"], rtol=1e-4)


def test_wrt_selects_what_is_trained():
    model = Net(nnx.Rngs(0))
    value_fn = nnx_value_fn(model, losses, X, Y, wrt=nnx.PathContains("bias"))
    (bias,) = jax.tree.leaves(
        jax.grad(lambda p: value_fn(p).mean())(
            nnx.as_pure(nnx.state(model, nnx.PathContains("bias")))
        )
    )
    assert bias.shape == (1,)
