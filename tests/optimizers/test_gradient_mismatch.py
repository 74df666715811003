"""A gradient that is not that of `value_fn` is seen, said, and no worse than for Adam."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.optimizers import adameka, eval_params, meka, metrics, scale_by_expected_improvement

X = jax.random.normal(jax.random.key(0), (2000, 10))
Y = jnp.tanh(X @ jax.random.normal(jax.random.key(5), (10, 8))).sum(1)
PARAMS = {"w": 0.3 * jax.random.normal(jax.random.key(2), (10, 32)), "v": jnp.zeros(32)}
BATCH = 8
MAKERS = {
    "adameka": adameka,
    "meka": meka,
    "rule": scale_by_expected_improvement,
}


def losses(params, rows):
    return (jnp.tanh(X[rows] @ params["w"]) @ params["v"] - Y[rows]) ** 2


def clipped(grads):
    clip = optax.clip_by_global_norm(0.2 * optax.tree.norm(grads))
    return clip.update(grads, clip.init(grads))[0]


# What is done to a gradient before it is handed over.
FAULTS = {
    "sum": lambda grads: optax.tree.scale(BATCH, grads),
    "clipped": clipped,
    "wrong sign": lambda grads: optax.tree.scale(-1, grads),
    "penalized": lambda grads: optax.tree.add_scale(grads, 100.0, PARAMS),
}


def trained(tx, change=lambda grads: grads, steps=400, raw=False):
    """The median over 24 runs of the loss where the rule says to evaluate, and all mismatches.

    The median, because a run may linger on a plateau.
    """

    def step(carry, key):
        params, state = carry
        rows = jax.random.randint(key, (BATCH,), 0, 2000)
        value_fn = lambda p: losses(p, rows)  # noqa: E731
        grads = jax.grad(lambda p: value_fn(p).mean())(params)
        given = {"grad": grads} if raw else {}
        updates, state = tx.update(change(grads), state, params, value_fn=value_fn, **given)
        return (optax.apply_updates(params, updates), state), metrics(state)["gradient_mismatch"]

    def run(key):
        keys = jax.random.split(key, steps)
        (params, state), mismatches = jax.lax.scan(step, (PARAMS, tx.init(PARAMS)), keys)
        return losses(eval_params(state, params), jnp.arange(2000)).mean(), mismatches

    found, mismatches = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(1), 24))
    return np.median(found), np.asarray(mismatches)


@pytest.fixture(scope="module")
def right():
    return trained(adameka())


def test_nothing_is_seen_where_all_is_right(right):
    loss, mismatches = right
    assert loss < 0.1
    assert np.all(mismatches < 0.01)


@pytest.mark.parametrize("fault", ["sum", "clipped"])
def test_a_gradient_of_another_length_shows_and_does_no_harm(fault, right):
    loss, mismatches = trained(adameka(), FAULTS[fault])
    assert np.mean(mismatches > 0.5) > 0.95  # all but slopes lost in rounding
    assert loss < 1.2 * right[0]


def test_a_wrong_sign_shows_and_ends_no_training():
    """Adam would climb for ever; no step is chosen along what climbs."""
    loss, mismatches = trained(adameka(), FAULTS["wrong sign"], steps=50)
    assert np.all(mismatches > 1)
    assert np.isfinite(loss)
    assert loss < 1.5 * losses(PARAMS, jnp.arange(2000)).mean()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("make", MAKERS)
def test_outside_of_jit_it_is_an_error_that_names_the_causes(make, fault):
    tx, rows = MAKERS[make](), jnp.arange(BATCH)
    value_fn = lambda p: losses(p, rows)  # noqa: E731
    params = jax.tree.map(lambda p: p + 0.1, PARAMS)
    grads = FAULTS[fault](jax.grad(lambda p: value_fn(p).mean())(params))
    with pytest.raises(ValueError, match=r"(?s)the mean of value_fn.*gradient_mismatch") as caught:
        tx.update(grads, tx.init(params), params, grad=grads, value_fn=value_fn)
    message = str(caught.value)
    assert message.count("mekax:") == 1
    for cause in ("sum", "clipped", "penalized", "batch", "sign"):
        assert cause in message


def test_the_raw_gradient_is_right_however_the_other_was_changed(right):
    """With `grad=`, a clipped gradient may be the direction."""
    tx = optax.chain(optax.clip_by_global_norm(10.0), adameka())
    loss, mismatches = trained(tx, raw=True)
    assert np.all(mismatches < 0.01)
    assert loss < 2 * right[0]
