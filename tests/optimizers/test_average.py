"""The average of the iterates, and where it is found."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.optimizers import adameka, average_iterates, eval_params


def averaged(iterates):
    """The recursion of the docstring, in double precision."""
    average = np.zeros_like(np.asarray(iterates[0], float))
    for k, iterate in enumerate(iterates):
        average += 10 / (k + 10) * (np.asarray(iterate, float) - average)
    return average


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_follows_the_recursion_and_changes_nothing(dtype):
    rng = np.random.default_rng(0)
    tx = average_iterates()
    params = jnp.asarray([1.0, -2.0], dtype)
    state, iterates = tx.init(params), []
    for _ in range(300):
        steps = jnp.asarray(0.1 * rng.normal(size=2), dtype)
        updates, state = tx.update(steps, state, params)
        np.testing.assert_array_equal(updates, steps)
        # The average sees the sum before it is rounded to the parameters' precision.
        iterates.append(np.asarray(params, np.float32) + np.asarray(updates, np.float32))
        params = optax.apply_updates(params, updates)
    assert eval_params(state, params).dtype == dtype
    np.testing.assert_allclose(state.average, averaged(iterates), rtol=1e-3, atol=1e-4)


def test_averages_out_noise():
    """SGD at the optimum of a noisy quadratic scatters; its average lies an order closer."""
    rng = np.random.default_rng(1)
    tx = optax.chain(optax.sgd(0.5), average_iterates())
    params = jnp.zeros(200)
    state = tx.init(params)
    for _ in range(300):
        gradient = params + jnp.asarray(rng.normal(size=200), jnp.float32)
        updates, state = tx.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    scatter = float(jnp.mean(params**2))
    assert scatter == pytest.approx(1 / 3, rel=0.3)  # α / (2 − α)
    assert float(jnp.mean(eval_params(state, params) ** 2)) < 0.15 * scatter


def test_is_found_wherever_it_is_kept():
    params = {"w": jnp.ones(2)}
    assert eval_params(optax.adam(0.1).init(params), params) is params
    tx = optax.inject_hyperparams(
        lambda cap: optax.chain(adameka(max_step_size=cap), average_iterates())
    )(cap=1.0)
    state = tx.init(params)
    np.testing.assert_array_equal(eval_params(state, params)["w"], params["w"])  # nothing yet
    grads = jax.tree.map(lambda p: 2 * p, params)
    _, state = tx.update(grads, state, params, value_fn=lambda p: jnp.sum(p["w"] ** 2))
    assert float(eval_params(state, params)["w"][0]) < 1


def test_leaves_out_what_is_not_finite():
    tx, params = average_iterates(), jnp.array([1.0])
    state = tx.init(params)
    _, state = tx.update(jnp.array([1.0]), state, params)
    _, state = tx.update(jnp.array([jnp.nan]), state, params)
    assert eval_params(state, params).tolist() == [2.0]
    assert int(state.count) == 1


def test_asks_for_parameters():
    tx = average_iterates()
    with pytest.raises(ValueError, match=r"average_iterates expected params .* tx.update"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
