"""What the campaign has found and is not mended yet; each test fails once it is."""

import jax
import jax.numpy as jnp
import optax
import pytest
from mekax.optimizers import adameka, meka, metrics


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="XLA turns a / b / c into a / (b c): underflow"
)
@pytest.mark.parametrize("make", [adameka, meka])
def test_the_newton_steps_deviation_is_finite_where_there_is_no_curvature(make):
    tx, params = make(), jnp.ones(3)
    value_fn = lambda w: jnp.zeros(4) + 0 * w.sum()  # noqa: E731
    _, state = tx.update(jnp.zeros(3), tx.init(params), params, value_fn=value_fn)
    assert jnp.isfinite(jax.jit(metrics)(state)["step_size_std"])


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="no step leads back from an infinite parameter"
)
def test_parameters_of_an_unbounded_loss_do_not_overflow():
    tx, params = adameka(), jnp.full(3, 4e4, jnp.float16)
    value_fn = lambda w: -jnp.sum(1e-9 * w.astype(jnp.float32) ** 2) + jnp.zeros(4)  # noqa: E731
    state = tx.init(params)

    @jax.jit
    def step(params, state):
        grads = 1e4 * jax.grad(lambda w: value_fn(w).mean())(params)
        updates, state = tx.update(grads, state, params, value_fn=value_fn)
        return optax.apply_updates(params, updates), state

    for _ in range(15):
        params, state = step(params, state)
    assert jnp.isfinite(params).all()
