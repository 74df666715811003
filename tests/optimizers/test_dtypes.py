"""Dtypes, shapes and shardings of updates and state never change; checked while tracing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from mekax.curvature import per_example
from mekax.optimizers import adameka, meka

DTYPES = ["float16", "bfloat16", "float32", "float64"]


def loss_fn(params, example):
    leaves = [jnp.sum(jnp.square(p * example)) for p in jax.tree.leaves(params)]
    return sum(leaves[1:], start=leaves[0])


def assert_stable(transformation, tx, params, example_dtype=jnp.float32):
    """Trace a `lax.cond` between a step and none, which refuses any difference of form."""
    batch = jax.ShapeDtypeStruct((4,), example_dtype)

    def advance(params, state, batch):
        return transformation.step(tx, params, state, batch, loss_fn)

    def perhaps(go, params, state, batch):
        return jax.lax.cond(go, advance, lambda p, s, _: (p, s), params, state, batch)

    state = jax.eval_shape(tx.init, params)
    go = jax.ShapeDtypeStruct((), jnp.bool_)
    new = jax.eval_shape(perhaps, go, params, state, batch)
    forms = [[form(x) for x in jax.tree.leaves(tree)] for tree in ((params, state), new)]
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(new)]
    changed = {p: (a, b) for p, a, b in zip(paths, *forms, strict=True) if a != b}
    assert not changed
    return state


def form(leaf):
    spec = tuple(getattr(leaf.sharding, "spec", ()))
    while spec and spec[-1] is None:
        spec = spec[:-1]
    return leaf.shape, leaf.dtype, leaf.weak_type, spec


@pytest.mark.parametrize("dtype", DTYPES)
def test_state_is_stable_in_every_dtype(transformation, dtype, float64):
    params = {"w": jax.ShapeDtypeStruct((2, 3), jnp.dtype(dtype))}
    state = assert_stable(transformation, transformation.injected(), params)
    scalars = {x.dtype for x in jax.tree.leaves(state.inner_state) if x.shape == ()}
    assert scalars <= {jnp.dtype(t) for t in (jnp.promote_types(dtype, "float32"), "int32", bool)}


@pytest.mark.parametrize(
    "dtypes", [("float32", "float64", "float32"), ("bfloat16", "float32", "float64")], ids="-".join
)
def test_state_is_stable_in_mixed_dtypes(transformation, dtypes, float64):
    """Parameters of two precisions, and losses of a third, which may be wider than both."""
    w, b, example = map(jnp.dtype, dtypes)
    params = {"w": jax.ShapeDtypeStruct((4,), w), "b": jax.ShapeDtypeStruct((4,), b)}
    assert_stable(transformation, transformation.injected(), params, example)


@pytest.mark.parametrize("covariance", ["scalar", "per_leaf", "diagonal"])
@pytest.mark.parametrize("statistics", ["sketched", "exact"])
def test_state_is_stable_in_every_structure(transformations, covariance, statistics, float64):
    row = transformations["meka"]
    row = row._replace(others={"covariance": covariance, "statistics": statistics})
    params = {"w": jax.ShapeDtypeStruct((4,), jnp.float32), "b": jax.ShapeDtypeStruct((), float)}
    assert_stable(row, row.injected(), params)


@pytest.mark.skipif(not hasattr(jax.sharding, "use_abstract_mesh"), reason="no explicit sharding")
def test_state_keeps_the_shardings_of_the_parameters(transformation):
    """Over a mesh of two axes, with shardings as part of the types, in mixed dtypes."""
    explicit = jax.sharding.AxisType.Explicit
    mesh = jax.sharding.AbstractMesh((4, 2), ("x", "y"), axis_types=(explicit,) * 2)
    specs = {(2, 8, 4): (None, "x", "y"), (8, 6): ("x", "y"), (6,): ("y",), (3,): ()}
    dtypes = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float32)
    with jax.sharding.use_abstract_mesh(mesh):
        params = {
            str(shape): jax.ShapeDtypeStruct(
                shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*spec))
            )
            for (shape, spec), dtype in zip(specs.items(), dtypes, strict=True)
        }
        state = assert_stable(transformation, transformation.plain(), params)
    found = [form(leaf) for leaf in jax.tree.leaves(state)]
    assert {shape for shape, *_ in found} == {*specs, ()}
    assert all(spec == specs.get(shape, ()) for shape, _, _, spec in found)


@pytest.mark.parametrize("dtype", [*DTYPES, "mixed"])
def test_updates_are_right_in_every_dtype(transformations, dtype, float64):
    """The largest program, run: it descends, finitely, also where float16 nearly overflows."""
    row, tx = transformations["adameka"], adameka()
    w, b, c = ["bfloat16", "float32", "float64"] if dtype == "mixed" else [dtype] * 3
    params = {
        "w": jnp.array([30.0, -20.0, 1.0], w),
        "b": jnp.ones((), b),
        "c": jnp.full((1, 2), -3, c),
    }
    batch = jnp.linspace(1.0, 2.0, 5)
    step = jax.jit(lambda p, s: row.step(tx, p, s, batch, loss_fn))
    carry = (params, tx.init(params))
    for _ in range(150):
        carry = step(*carry)
    assert all(np.all(np.isfinite(np.asarray(x, float))) for x in jax.tree.leaves(carry))
    size = max(float(jnp.max(jnp.abs(p))) for p in jax.tree.leaves(carry[0]))
    assert size < 1


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (jnp.ones(2, jnp.int32), "counters"),
        (jax.random.key(0), "keys"),
        (jax.random.PRNGKey(0), "keys"),
        (jnp.ones(2, bool), "bool"),
    ],
    ids=["integer", "typed key", "untyped key", "boolean"],
)
def test_other_parameters_are_refused(transformation, leaf, message):
    with pytest.raises(TypeError, match=rf"(?s)\['z'\].*{message}|{message} at \['z'\]"):
        transformation.plain().init({"w": jnp.ones(2), "z": leaf})


@pytest.mark.parametrize("make_key", [jax.random.key, jax.random.PRNGKey], ids=["typed", "untyped"])
@pytest.mark.parametrize("chunk_size", [None, 3])
@pytest.mark.parametrize("row", ["adameka", "diagonal", "rule"])
def test_keys_belong_to_the_examples(transformations, row, make_key, chunk_size):
    """Dropout keys of either kind pass through the batch untouched."""
    keys = jax.random.split(make_key(0), 7)
    params, tx = {"w": jnp.ones(4)}, transformations[row].plain()

    def noisy(params, key):
        keep = jax.random.bernoulli(key, 0.5, (4,))
        return jnp.sum(jnp.where(keep, params["w"], 0) ** 2)

    def advance(params, state, keys):
        value_fn = per_example(noisy, keys, chunk_size)
        return tx.update(params, state, params, value_fn=value_fn)[0]

    updates = jax.eval_shape(advance, params, tx.init(params), keys)
    assert jax.tree.map(lambda u: (u.shape, u.dtype), updates) == {"w": ((4,), jnp.float32)}


@pytest.mark.parametrize("make", [meka, adameka])
def test_steps_that_rounding_swallows_grow_until_they_are_made(make):
    """After a bad first view the radius is far below what bfloat16 resolves."""
    tx, params = make(), jnp.ones(2, jnp.bfloat16)

    @jax.jit
    def step(params, state, steepness, end):
        value_fn = lambda p: steepness * (p.astype(jnp.float32) - end) ** 2  # noqa: E731
        grads = jax.grad(lambda p: value_fn(p).mean())(params)
        updates, state = tx.update(grads, state, params, value_fn=value_fn)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for steepness, end in ((1e4, 1.0005), (jnp.nan, 1.0), *[(1.0, 5.0)] * 120):
        params, state = step(params, state, steepness, end)
    np.testing.assert_allclose(params, 5, rtol=0.05)


def test_results_do_not_depend_on_the_kind_of_key():
    tx, params = meka(), jnp.ones(4)

    def noisy(params, key):
        return jnp.sum(jnp.where(jax.random.bernoulli(key, 0.5, (4,)), params, 0) ** 2)

    def advance(keys):
        value_fn = per_example(noisy, keys)
        grads = jax.grad(lambda p: value_fn(p).mean())(params)
        return tx.update(grads, tx.init(params), params, value_fn=value_fn)[0]

    typed, untyped = (
        jax.jit(advance)(jax.random.split(make(0), 7))
        for make in (jax.random.key, jax.random.PRNGKey)
    )
    np.testing.assert_array_equal(typed, untyped)
