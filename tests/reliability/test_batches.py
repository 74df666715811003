"""Batches of any size in any order, from one example up; and faults in some of them."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mekax.optimizers import adameka, meka, metrics

SIZES = (1, 4)
MAKE = {"adameka": adameka, "meka": meka}


@cache
def steps(name):
    """One compiled step for each size."""
    tx = MAKE[name]()

    @jax.jit
    def step(params, state, x, bad):
        value_fn = lambda w: jnp.sum((w - x) ** 2, axis=1) + bad  # noqa: E731
        grads = jax.grad(lambda w: value_fn(w).mean())(params)
        updates, state = tx.update(grads, state, params, value_fn=value_fn)
        return optax.apply_updates(params, updates), state, metrics(state)

    return tx, step


@pytest.fixture
def _in_time(request, in_campaign):
    if request.node.callspec.params["name"] == "meka" and not in_campaign:
        pytest.skip("compiled in the campaign only")


@pytest.mark.usefixtures("_in_time")
@pytest.mark.parametrize("name", MAKE)
@given(
    batches=st.lists(st.tuples(st.sampled_from(SIZES), st.booleans()), min_size=1, max_size=30),
    seed=st.integers(0, 1000),
)
def test_batches_of_changing_size(name, batches, seed, tally):
    tx, step = steps(name)
    tally["cases of changing batch sizes"] += 1
    rng = np.random.default_rng(seed)
    params = jnp.full(3, 10.0)
    state, rejected = tx.init(params), 0
    for size, good in batches:
        x = 0.1 * rng.standard_normal((size, 3)).astype(np.float32)
        params, state, known = step(params, state, x, np.float32(0 if good else np.nan))
        rejected += not good
        assert known["num_rejected"] == rejected
        assert np.isfinite(params).all()
    goods = sum(good for _, good in batches)
    assert np.abs(params).max() <= 10 + 1e-3
    if goods == len(batches) >= 15:
        assert np.abs(params).max() < 9
