"""The rule after any direction: with `grad=` it is what it is without, and `adameka` after Adam."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.optimizers import adameka, metrics, scale_by_expected_improvement

STEPS = 60


def _all_matrices(params):
    return jax.tree.map(lambda _: optax.contrib.MuonDimensionNumbers(), params)


DIRECTIONS = {
    "adam": optax.scale_by_adam,
    "momentum": lambda: optax.trace(0.9),
    "lion": optax.scale_by_lion,
    "muon": lambda: optax.contrib.scale_by_muon(weight_dimension_numbers=_all_matrices),
}


def trained(tx, given=True):
    """Parameters, step sizes and slopes over a small noisy training in double precision."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(STEPS, 16, 4)))
    y = jnp.sin(x.sum(2)) + 0.3 * jnp.asarray(rng.normal(size=(STEPS, 16)))
    params = {"w": jnp.asarray(rng.normal(size=(4, 5))), "v": jnp.asarray(rng.normal(size=(5, 1)))}

    def step(carry, batch):
        params, state = carry
        x, y = batch
        value_fn = lambda p: (jnp.tanh(x @ p["w"]) @ p["v"] - y[:, None])[:, 0] ** 2  # noqa: E731
        grads = jax.grad(lambda p: value_fn(p).mean())(params)
        extra_args = {"grad": grads} if given else {}
        updates, state = tx.update(grads, state, params, value_fn=value_fn, **extra_args)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, metrics(state))

    run = jax.jit(lambda c: jax.lax.scan(step, c, (x, y))[1])
    path, known = run((params, tx.init(params)))
    return [*jax.tree.leaves(path), known["step_size"], known["slope"], known["radius"]]


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == np.float64
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("given", [True, False], ids=["grad=", "no grad="])
def test_adam_and_the_rule_are_adameka(given):
    chain = optax.chain(optax.scale_by_adam(), scale_by_expected_improvement())
    assert_same(trained(chain, given), trained(adameka()))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", DIRECTIONS)
def test_a_given_gradient_changes_nothing(name):
    tx = optax.chain(DIRECTIONS[name](), scale_by_expected_improvement())
    with_it, without = trained(tx), trained(tx, given=False)
    assert_same(with_it, without)
    assert np.ptp(with_it[-3]) > 0  # steps of several sizes


@pytest.mark.usefixtures("float64")
def test_a_given_gradient_is_not_computed_again():
    """It saves a backward pass, or, where none is given, takes what the caller computes."""
    params, tx = jnp.ones(3), scale_by_expected_improvement()
    calls = []

    def value_fn(p):
        calls.append(1)
        return jnp.sum(p**2)

    counts = []
    for extra_args in ({"grad": 2 * params}, {}):
        calls.clear()
        tx.update(2 * params, tx.init(params), params, value_fn=value_fn, **extra_args)
        counts.append(len(calls))
    assert counts[1] > counts[0]
