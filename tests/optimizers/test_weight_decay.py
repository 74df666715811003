"""Decoupled weight decay is part of the direction, multiplied by the step size as in AdamW."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.optimizers import adameka, metrics, scale_by_expected_improvement

STEPS = 60
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(STEPS, 16, 4)), jnp.float32)
Y = jnp.sin(X.sum(2)) + 0.3 * jnp.asarray(RNG.normal(size=(STEPS, 16)), jnp.float32)
PARAMS = {
    "w": jnp.asarray(RNG.normal(size=(4, 5)), jnp.float32),
    "v": jnp.asarray(RNG.normal(size=5), jnp.float32),
}


def losses(params, batch):
    x, y = batch
    return (jnp.tanh(x @ params["w"]) @ params["v"] - y) ** 2


def trained(tx, params=PARAMS, number=1):
    """Parameters before each step, updates, Adam's own direction, and metrics."""
    adam = optax.scale_by_adam()

    def step(carry, batch):
        params, state, adams = carry
        value_fn = lambda p: losses(p, batch)  # noqa: E731
        grads = jax.grad(lambda p: value_fn(p).mean())(params)
        direction, adams = adam.update(grads, adams)
        updates, state = tx.update(grads, state, params, grad=grads, value_fn=value_fn)
        new = optax.apply_updates(params, updates)
        return (new, state, adams), (params, updates, direction, metrics(state))

    batches = jax.tree.map(lambda a: jnp.tile(a, (number, 1, *[1] * (a.ndim - 2))), (X, Y))
    carry = (params, tx.init(params), adam.init(params))
    return jax.jit(lambda c: jax.lax.scan(step, c, batches)[1])(carry)


@pytest.mark.parametrize("decay", [1e-3, 0.3])
def test_the_update_is_the_step_size_times_both(decay):
    """α (d − λ θ), with α as `metrics` shows it and d of Adam: the rule of AdamW."""
    params, updates, direction, known = trained(adameka(weight_decay=decay))
    for name in params:
        alpha = known["step_size"].reshape(-1, *[1] * (params[name].ndim - 1))
        expected = -alpha * (direction[name] + decay * params[name])
        np.testing.assert_allclose(updates[name], expected, rtol=1e-3, atol=1e-5)
    assert np.all(known["step_size"] >= 0)
    assert np.mean(known["step_size"] > 0) > 0.8


def test_it_is_the_chain_with_decayed_weights():
    chain = optax.chain(
        optax.scale_by_adam(), optax.add_decayed_weights(0.01), scale_by_expected_improvement()
    )
    ours, theirs = trained(adameka(weight_decay=0.01)), trained(chain)
    for one, other in zip(jax.tree.leaves(ours[0]), jax.tree.leaves(theirs[0]), strict=True):
        np.testing.assert_allclose(one, other, rtol=0.02, atol=2e-3)


def test_none_is_none_at_all():
    ours, theirs = trained(adameka()), trained(adameka(weight_decay=0.0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3), ours[0], theirs[0])


@pytest.mark.parametrize("decay", [1e-4, 1e-3, 1e-2, 1e-1])
def test_the_rule_goes_on_learning(decay):
    """Every step is the rule's own, and so is one to learn from."""
    _, _, _, known = trained(adameka(weight_decay=decay), number=3)
    counts = np.asarray(known["num_adaptations"])
    assert counts[-1] > 0.9 * len(counts)
    assert np.mean(known["loss_mean"][-20:]) < 0.5 * known["loss_mean"][0]
    assert np.all(known["num_rejected"] == 0)


def test_strong_decay_keeps_parameters_small():
    norms = [
        float(optax.tree.norm(jax.tree.map(lambda p: p[-1], trained(adameka(weight_decay=d))[0])))
        for d in (1e-4, 1.0)
    ]
    assert norms[1] < 0.8 * norms[0]


def test_weights_that_nothing_else_moves_decay():
    """An unused leaf follows θ ← θ − α λ θ."""
    params = PARAMS | {"unused": jnp.ones(3)}
    path, _, _, known = trained(adameka(weight_decay=0.1), params)
    factors = np.cumprod(1 - 0.1 * np.asarray(known["step_size"]))[:-1]
    np.testing.assert_allclose(path["unused"][1:, 0], factors, rtol=1e-4)
    assert factors[-1] < 0.99
