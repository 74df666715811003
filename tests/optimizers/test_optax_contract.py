"""What Optax expects of a drop-in, over every public transformation of the library."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.optimizers import (
    adameka,
    meka,
    metrics,
    scale_by_expected_improvement,
    scale_by_kalman_filter,
    warm_start,
)

TRANSFORMATIONS = {
    "meka": meka,
    "adameka": adameka,
    "kalman": scale_by_kalman_filter,
    "improvement": scale_by_expected_improvement,
    "warm_start": lambda: warm_start(0.1, 2, meka()),
}


@pytest.fixture(params=TRANSFORMATIONS, ids=str)
def tx(request):
    return TRANSFORMATIONS[request.param]()


def losses(params, batch):
    return jnp.sum(jnp.square(params["w"] * batch + params["b"]), axis=-1)


PARAMS = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5, jnp.float32), "none": None}
BATCH = jnp.array([[1.0, 2.0], [0.5, -1.0], [3.0, 0.1]])


def step(tx, params, state, batch):
    def value_fn(p):
        return losses(p, batch)

    grads = jax.grad(lambda p: value_fn(p).mean())(params)
    updates, state = tx.update(grads, state, params, value_fn=value_fn)
    return optax.apply_updates(params, updates), state


def signature(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


def test_state_keeps_its_structure_and_nothing_recompiles(tx):
    traces = []

    @jax.jit
    def jitted(params, state, batch):
        traces.append(1)
        return step(tx, params, state, batch)

    params, state = PARAMS, tx.init(PARAMS)
    expected = signature(state)
    for _ in range(3):
        params, state = jitted(params, state, BATCH)
        assert signature(state) == expected
    assert len(traces) == 1


def test_init_takes_shapes_only(tx):
    shapes = jax.eval_shape(lambda: PARAMS)
    state = tx.init(shapes)
    assert signature(state) == signature(tx.init(PARAMS))


def test_donated_state_and_scan(tx):
    @jax.jit
    def run(params, state):
        return jax.lax.scan(lambda c, _: (step(tx, *c, BATCH), None), (params, state), length=5)[0]

    expected = run(PARAMS, tx.init(PARAMS))[0]
    donating = jax.jit(lambda p, s: step(tx, p, s, BATCH), donate_argnums=1)
    params, state = PARAMS, jax.tree.map(jnp.copy, tx.init(PARAMS))
    for _ in range(5):
        params, state = donating(params, state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), params, expected)


def test_inject_hyperparams():
    tx = optax.inject_hyperparams(meka)(max_step_size=0.01)
    state = tx.init(PARAMS)
    _, state = jax.jit(lambda p, s: step(tx, p, s, BATCH))(PARAMS, state)
    assert float(metrics(state)["step_size"]) <= 0.01 * (1 + 1e-5)
    assert float(state.hyperparams["max_step_size"]) == np.float32(0.01)


def test_tree_utilities(tx):
    state = tx.init(PARAMS)
    doubled = optax.tree.map_params(tx, lambda x: x, state)
    assert jax.tree.structure(doubled) == jax.tree.structure(state)


def test_flatten_round_trip(tx):
    _, state = step(tx, PARAMS, tx.init(PARAMS), BATCH)
    leaves, structure = jax.tree.flatten(state)
    assert signature(structure.unflatten(leaves)) == signature(state)


def test_vmap_over_seeds_equals_single_runs(tx):
    starts = jax.vmap(lambda k: jax.random.normal(k, (2,)))(jax.random.split(jax.random.key(0), 4))

    def run(w):
        params = {**PARAMS, "w": w}
        return jax.lax.scan(
            lambda c, _: (step(tx, *c, BATCH), None), (params, tx.init(params)), length=3
        )[0][0]["w"]

    together = jax.jit(jax.vmap(run))(starts)
    single = jnp.stack([jax.jit(run)(w) for w in starts])
    np.testing.assert_allclose(together, single, rtol=1e-3, atol=1e-4)


def test_mask_equals_the_subtree_alone():
    masked = meka(mask={"w": True, "b": False, "none": None})
    params, state = PARAMS, masked.init(PARAMS)
    alone = {"w": PARAMS["w"]}
    tx = meka()
    other = tx.init(alone)
    for _ in range(4):
        params, state = step(masked, params, state, BATCH)

        def value_fn(p):
            return losses({**PARAMS, **p}, BATCH)

        grads = jax.grad(lambda p: value_fn(p).mean())(alone)
        updates, other = tx.update(grads, other, alone, value_fn=value_fn)
        alone = optax.apply_updates(alone, updates)
    np.testing.assert_allclose(params["w"], alone["w"], rtol=1e-5)
    assert float(params["b"]) == 0.5
