import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.optimizers import (
    adameka,
    average_iterates,
    losses_and_grad,
    meka,
    warm_start,
)

X = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)), jnp.float32)
MAKERS = {
    "adameka": adameka,
    "masked": lambda: adameka(mask={"w": True, "b": False}),
    "chain": lambda: optax.chain(adameka(), average_iterates()),
    "warm_start": lambda: warm_start(0.01, 5, adameka()),
    "meka": meka,  # which has no use for them
}


def value_fn(params):
    return (jnp.tanh(X @ params["w"]) + params["b"] - X[:, 0]) ** 2


def start():
    return {"w": jnp.array([0.5, -1.0, 2.0]), "b": jnp.array(0.3)}


def test_losses_and_gradient_are_those_of_jax():
    losses, gradient = losses_and_grad(value_fn)(start())
    np.testing.assert_array_equal(losses, value_fn(start()))
    expected = jax.grad(lambda p: value_fn(p).mean())(start())
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, rtol=1e-6), gradient, expected)


def test_a_scalar_is_one_loss():
    losses, gradient = losses_and_grad(lambda w: jnp.sum(w**2))(jnp.array([1.0, 2.0]))
    assert losses.tolist() == [5.0]
    assert gradient.tolist() == [2.0, 4.0]


@pytest.mark.parametrize("make", MAKERS)
def test_losses_that_are_given_change_nothing(make):
    tx = MAKERS[make]()

    def trained(give):
        def step(carry, _):
            params, state = carry
            losses, grads = losses_and_grad(value_fn)(params)
            given = {"losses": losses} if give else {}
            updates, state = tx.update(grads, state, params, value_fn=value_fn, **given)
            params = optax.apply_updates(params, updates)
            return (params, state), losses.mean()

        return jax.jit(
            lambda: jax.lax.scan(step, (start(), tx.init(start())), length=30)[1],
        )()

    np.testing.assert_allclose(trained(True), trained(False), rtol=1e-4)


def test_losses_that_are_given_are_not_computed():
    def evaluations(**given):
        calls = []

        def counted(params):
            calls.append(params)
            return value_fn(params)

        tx = adameka()
        tx.update(start(), tx.init(start()), start(), value_fn=counted, **given)
        return len(calls)

    assert evaluations(losses=value_fn(start())) == evaluations() - 1


@pytest.mark.parametrize(
    ("losses", "error", "message"),
    [
        (jnp.ones(3), ValueError, r"expected losses to be what value_fn returns.*\(8,\).*\(3,\)"),
        (jnp.ones(()), ValueError, r"not their mean: losses, grads = losses_and_grad"),
        (jnp.ones((8, 1)), ValueError, r"expected losses to be one loss per example"),
        (jnp.ones(8, jnp.int32), TypeError, r"expected losses to be real floating-point losses"),
    ],
)
def test_losses_of_something_else_are_refused(losses, error, message):
    tx = adameka()
    with pytest.raises(error, match=message):
        tx.update(start(), tx.init(start()), start(), value_fn=value_fn, losses=losses)
