"""Loops without `jit`: nothing is compiled once two steps were made."""

import jax
import jax.numpy as jnp
import optax
import pytest
from mekax.optimizers import (
    adameka,
    meka,
    metrics,
    scale_by_expected_improvement,
    scale_by_kalman_filter,
)

MAKERS = {
    "adameka": adameka,
    "weight decay": lambda: adameka(weight_decay=0.01),
    "meka": meka,
    "adam+rule": lambda: optax.chain(optax.scale_by_adam(), scale_by_expected_improvement()),
    "filter+rule": lambda: optax.chain(scale_by_kalman_filter(), scale_by_expected_improvement()),
}
compiled = []


def listen(event, duration, **_):
    if event == "/jax/core/compile/backend_compile_duration":
        compiled.append(duration)


jax.monitoring.register_event_duration_secs_listener(listen)


@pytest.mark.parametrize("make", MAKERS)
def test_nothing_is_compiled_after_the_second_step(make):
    """Neither where the curvature is measured nor, later, where it is remembered."""
    tx, params = MAKERS[make](), {"w": jnp.ones(3)}
    state, counts = tx.init(params), []
    for count in range(26):
        x = jax.random.normal(jax.random.key(count), (16, 3))
        value_fn = lambda p, x=x: (jnp.tanh(x @ p["w"]) - x.sum(1)) ** 2  # noqa: E731
        grads = jax.grad(lambda p, value_fn=value_fn: value_fn(p).mean())(params)
        updates, state = tx.update(grads, state, params, grad=grads, value_fn=value_fn)
        params = optax.apply_updates(params, updates)
        metrics(state)
        counts.append(len(compiled))
    assert counts[0] > 0  # the listener listens
    assert counts[-1] == counts[1], f"compiled after each step: {counts}"


@pytest.mark.parametrize("make", [adameka, meka])
def test_donating_the_parameters_does_not_take_them_from_the_state(make):
    tx, params = make(), jnp.array([3.0, -2.0])
    apply = jax.jit(optax.apply_updates, donate_argnums=0)
    value_fn = lambda w: jnp.sum(w**2)  # noqa: E731
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update(jax.grad(value_fn)(params), state, params, value_fn=value_fn)
        params = apply(params, updates)
    assert jnp.isfinite(params).all()
