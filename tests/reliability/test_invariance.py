"""Units, the order of the examples and the shapes of the leaves change nothing but rounding.

In double precision: a dozen steps of a training that is not convex can make of rounding in single
precision whatever they like.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mekax.curvature import per_example
from mekax.optimizers import adameka, meka, metrics

STEPS, EXAMPLES = 12, 8
MAKE = {"adameka": adameka, "meka": lambda: meka(statistics="exact")}
SPLIT = {
    False: lambda w: {"all": w},
    True: lambda w: {"a": w[0], "b": [w[1:4].reshape(3, 1), w[4:]]},
}
MERGE = {
    False: lambda params: params["all"],
    True: lambda p: jnp.concatenate([p["a"][None], p["b"][0][:, 0], p["b"][1]]),
}


@cache
def program(name, split):
    """Compiled training, `(seed, loss scale, parameter scale, order) ↦ trajectory`.

    What comes back is in the units of a training without scales: parameters, losses and step
    lengths.
    """
    tx = MAKE[name]()

    @jax.jit
    def train(seed, loss_scale, scale, order):
        key = jax.random.key(seed)
        params = SPLIT[split](scale * jax.random.normal(key, (6,)))

        def loss_of_one(params, example):
            w, (x, y) = MERGE[split](params) / scale, example
            return loss_scale * (jnp.tanh(w @ x) + 0.1 * w @ w - y) ** 2

        def step(carry, key):
            params, state = carry
            x = jax.random.normal(key, (EXAMPLES, 6))
            batch = (x[order], jnp.sin(x.sum(1))[order])
            value_fn = per_example(loss_of_one, batch)
            loss, grads = jax.value_and_grad(lambda p: value_fn(p).mean())(params)
            updates, state = tx.update(grads, state, params, value_fn=value_fn)
            length = optax.tree.norm(updates) / scale
            new = optax.apply_updates(params, updates)
            known = metrics(state)["snr"], metrics(state)["slope_ratio"]
            return (new, state), (MERGE[split](new) / scale, loss / loss_scale, length, *known)

        keys = jax.random.split(key, STEPS)
        return jax.lax.scan(step, (params, tx.init(params)), keys)[1]

    in_order = np.arange(EXAMPLES)

    def run(seed, loss_scale=1.0, scale=1.0, order=in_order):
        numbers = np.float64(loss_scale), np.float64(scale)
        return jax.device_get(train(np.int32(seed), *numbers, np.asarray(order, np.int32)))

    return run


@pytest.fixture
def _in_time(request, in_campaign):
    if request.node.callspec.params["name"] == "meka" and not in_campaign:
        pytest.skip("compiled in the campaign only")


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == np.float64
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * np.abs(other).max())


@pytest.mark.usefixtures("_in_time", "float64")
@pytest.mark.parametrize("name", MAKE)
@given(
    seed=st.integers(0, 1000),
    loss_power=st.integers(-20, 20),
    power=st.integers(-15, 15),
)
def test_units_change_nothing(name, seed, loss_power, power, tally):
    tally["cases of other units, order and shapes"] += 1
    run = program(name, False)
    # In units in which gradients are large: Adam's ε is absolute.
    large = 2.0**60 if name == "adameka" else 1.0
    assert_same(run(seed, large * 2.0**loss_power, 2.0**power), run(seed, large))


@pytest.mark.usefixtures("_in_time", "float64")
@pytest.mark.parametrize("name", MAKE)
@given(seed=st.integers(0, 1000), order=st.permutations(range(EXAMPLES)))
def test_the_order_of_examples_changes_nothing(name, seed, order, tally):
    tally["cases of other units, order and shapes"] += 1
    run = program(name, False)
    assert_same(run(seed, order=order), run(seed))


@pytest.mark.usefixtures("_in_time", "float64")
@pytest.mark.parametrize("name", MAKE)
@given(seed=st.integers(0, 1000))
def test_splitting_leaves_changes_nothing(name, seed, tally, in_campaign):
    if not in_campaign:
        pytest.skip("compiled in the campaign only")
    tally["cases of other units, order and shapes"] += 1
    assert_same(program(name, True)(seed), program(name, False)(seed))
