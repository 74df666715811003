"""What Optax expects of a drop-in when it runs, over every public transformation.

Each transformation is compiled three times: as it is, with all numeric hyperparameters injected,
and the latter again under `vmap` and `scan`; many assertions share these programs.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.optimizers import (
    adameka,
    improvement_threshold,
    meka,
    metrics,
    scale_by_expected_improvement,
    scale_by_kalman_filter,
    warm_start,
)

PARAMS = {
    "w": jnp.array([1.0, -2.0]),
    "b": jnp.array(0.5, jnp.float32),
    "none": None,
    "empty": jnp.zeros((0, 3)),
}
SEEDS, STEPS = 8, 10


def loss_fn(params, example):
    x, y = example
    return jnp.square(params["w"] @ x + params["b"] - y)


def regression(seed):
    """Ten batches of 16 noisy observations of a line; all examples are different."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(STEPS, 16, 2)).astype(np.float32)
    y = x @ np.array([0.5, 1.5]) - 1 + rng.normal(size=(STEPS, 16))
    return jnp.asarray(x), jnp.asarray(y, jnp.float32)


BATCHES = regression(0)
FROZEN = {"w": True, "b": False, "none": None, "empty": False}


def batch_at(batches, i):
    return jax.tree.map(lambda x: x[i], batches)


def signature(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


def assert_close(actual, expected, tolerance=2e-3):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance),
        actual,
        expected,
    )


@pytest.fixture(scope="module")
def run(transformation):
    """The plain transformation over all batches, buffers donated: history, traces, programs."""
    tx, traces = transformation.plain(), []

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def advance(params, state, batch):
        traces.append(1)
        return transformation.step(tx, params, state, batch, loss_fn)

    params, state = jax.tree.map(jnp.copy, PARAMS), tx.init(PARAMS)
    history = [(params, state)]
    for i in range(STEPS):
        params, state = advance(params, state, batch_at(BATCHES, i))
        history.append((params, state))
    # A change of form traces again, one of placement only compiles again.
    return history, len(traces), advance._cache_size()


def test_nothing_recompiles_and_the_state_keeps_its_form(run):
    history, traces, programs = run
    assert (traces, programs) == (1, 1)
    assert {str(signature(pair)) for pair in history} == {str(signature(history[0]))}
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(history[0]))


def test_donated_buffers_are_used(run):
    """Every buffer of the state is its own, from `init` on, so that all can be donated.

    What a program does not read, it does not take: numbers that are of one step, or for us.
    """
    history, *_ = run
    for pair in history[:-1]:
        for path, leaf in jax.tree_util.tree_leaves_with_path(pair):
            name = jax.tree_util.keystr(path)
            read = leaf.size and not any(of in name for of in (".info", ".step_size", ".outcome"))
            assert leaf.is_deleted() or not read, jax.tree_util.keystr(path)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(history[-1]))


@pytest.fixture(scope="module")
def injected(transformation):
    """The transformation with its hyperparameters injected, and its step, compiled once."""
    tx = transformation.injected()

    def init(params):
        # Optax leaves integers weakly typed, others that are set do not: one form for both.
        state = tx.init(params)
        strong = {name: jnp.asarray(x, x.dtype) for name, x in state.hyperparams.items()}
        return state._replace(hyperparams=strong)

    return tx._replace(init=init), jax.jit(
        lambda p, s, batch: transformation.step(tx, p, s, batch, loss_fn)
    )


def test_all_numeric_hyperparameters_can_be_injected(transformation, injected, run):
    """Traced, they give the same run; changed in the state, they take effect, without a retrace."""
    tx, advance = injected
    state = tx.init(PARAMS)
    assert set(transformation.hyperparams) <= set(state.hyperparams)
    expected = signature(state)
    params = PARAMS
    for i in range(STEPS):
        params, state = advance(params, state, batch_at(BATCHES, i))
        assert signature(state) == expected
    assert_close(params, run[0][-1][0])
    if "max_step_size" in transformation.hyperparams:
        state.hyperparams["max_step_size"] = jnp.float32(1e-4)
        _, state = advance(params, state, batch_at(BATCHES, 0))
        assert float(metrics(state)["step_size"]) <= 1e-4 * (1 + 1e-5)
    assert advance._cache_size() == 1


@pytest.mark.parametrize(
    ("make", "static", "arguments"),
    [
        (meka, ["acquisition", "mask"], {"mask": lambda params: FROZEN}),
        (adameka, ["acquisition", "mask"], {"mask": lambda params: FROZEN}),
        (scale_by_expected_improvement, "acquisition", {}),
    ],
)
def test_callables_are_static_and_schedules_are_not(transformations, make, static, arguments):
    """As Optax has it: every callable is a schedule unless it is named in `static_args`."""
    row = transformations["meka"]
    cap = optax.linear_schedule(1.0, 0.1, 10)
    tx = optax.inject_hyperparams(make, static_args=static)(
        acquisition=improvement_threshold(0.9), max_step_size=cap, **arguments
    )
    state = jax.eval_shape(tx.init, PARAMS)
    assert "max_step_size" in state.hyperparams
    step = functools.partial(row.step, tx, loss_fn=loss_fn)
    _, new = jax.eval_shape(step, PARAMS, state, batch=batch_at(BATCHES, 0))
    assert signature(new) == signature(state)


def test_the_switch_of_a_warm_start_may_be_a_static_criterion(transformations):
    tx = optax.inject_hyperparams(warm_start, static_args="until")(
        optax.linear_schedule(0.2, 0.1, 10), lambda known: known["snr"] < 1, meka()
    )
    state = jax.eval_shape(tx.init, PARAMS)
    step = functools.partial(transformations["warm_start"].step, tx, loss_fn=loss_fn)
    _, new = jax.eval_shape(step, PARAMS, state, batch=batch_at(BATCHES, 0))
    assert signature(new) == signature(state)
    assert set(state.hyperparams) == {"learning_rate"}


def test_many_seeds_and_thousands_of_steps(transformation, injected):
    """One `vmap` over a `scan`: equal to single runs over 10 steps, and healthy after 3,000."""
    tx, single = injected

    def start(seed):
        params = {**PARAMS, "w": jax.random.normal(jax.random.key(seed), (2,))}
        state = tx.init(params)
        if "seed" in state.hyperparams:
            state.hyperparams["seed"] = seed
        return params, state

    def step(carry, batch):
        return transformation.step(tx, *carry, batch, loss_fn), None

    def epochs(carry, batches, number):
        return jax.lax.fori_loop(0, number, lambda _, c: jax.lax.scan(step, c, batches)[0], carry)

    seeds = jnp.arange(SEEDS)
    batches = jax.tree.map(lambda *x: jnp.stack(x), *map(regression, range(SEEDS)))
    starts = jax.vmap(start)(seeds)
    together = jax.jit(jax.vmap(epochs, in_axes=(0, 0, None)))
    short = together(starts, batches, 1)
    for i in range(SEEDS):
        carry = start(seeds[i])
        for j in range(STEPS):
            carry = single(*carry, batch_at(batches, (i, j)))
        assert_close(batch_at(short[0], i), carry[0])

    params, state = together(starts, batches, 300)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((params, state)))
    assert np.all(jax.vmap(metrics)(state)["num_rejected"] == 0)
    variances = [
        leaf
        for name in ("variance", "value_variance")
        for _, v in optax.tree.get_all_with_path(state, name)
        for leaf in jax.tree.leaves(v)
        if leaf.size
    ]
    assert variances
    assert all(np.all((leaf > 1e-9) & (leaf < 1e3)) for leaf in variances)
    values = jax.vmap(lambda p, b: jnp.mean(jax.vmap(loss_fn, (None, 0))(p, b)))(
        params, jax.tree.map(lambda x: x.reshape(SEEDS, -1, *x.shape[3:]), batches)
    )
    np.testing.assert_array_less(values, 3.0)  # the noise is 1, the start about 5


def test_init_is_pure_and_takes_shapes_only(transformation):
    tx = transformation.plain()
    state = tx.init(PARAMS)
    shapes = jax.eval_shape(lambda: PARAMS)
    for other in (tx.init(shapes), jax.jit(tx.init)(PARAMS), tx.init(PARAMS)):
        assert signature(other) == signature(state)
        jax.tree.map(np.testing.assert_array_equal, other, state)
    arrays = jax.tree.map(np.asarray, PARAMS)
    assert signature(tx.init(arrays)) == signature(state)


def assert_shifts_parameters_only(tx, params):
    state = tx.init(params)
    shifted = optax.tree.map_params(tx, lambda x: x + 1, state)
    assert jax.tree.structure(shifted) == jax.tree.structure(state)
    paths = jax.tree_util.tree_leaves_with_path(state)
    for (path, old), new in zip(paths, jax.tree.leaves(shifted), strict=True):
        like_params = isinstance(path[-1], jax.tree_util.DictKey) and path[-1].key in params
        np.testing.assert_array_equal(new, old + 1 if like_params else old)


def test_parameters_in_the_state_are_found(transformation):
    assert_shifts_parameters_only(transformation.plain(), PARAMS)


@pytest.mark.parametrize("make", [meka, adameka])
@pytest.mark.parametrize("mask", [FROZEN, lambda params: FROZEN], ids=["tree", "function"])
def test_parameters_in_a_masked_state_are_found(make, mask):
    assert_shifts_parameters_only(make(mask=mask), PARAMS)


def test_step_size_is_found_in_the_state(transformation, run):
    state = run[0][-1][1]
    if transformation.make is scale_by_kalman_filter:
        assert optax.tree.get(state, "step_size") is None
        return
    found = optax.tree.get(state, "step_size")
    assert found is not None
    assert float(found) == pytest.approx(float(metrics(state)["step_size"]), rel=1e-6)
    assert float(found) > 0


def test_flatten_round_trip(run):
    state = run[0][-1][1]
    leaves, structure = jax.tree.flatten(state)
    again = structure.unflatten([jnp.asarray(np.asarray(leaf)) for leaf in leaves])
    assert signature(again) == signature(state)
    # Nothing that a checkpoint could not hold: no keys, no Python scalars.
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    assert not any(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves)


def test_mask_equals_the_subtree_alone():
    masked, tx = meka(mask=FROZEN), meka()
    batch = batch_at(BATCHES, 0)

    @jax.jit
    def advance(params, state, alone, other):
        def values(p):
            return jax.vmap(loss_fn, (None, 0))({**PARAMS, **p}, batch)

        grads = jax.grad(lambda p: values(p).mean())
        updates, state = masked.update(grads(params), state, params, value_fn=values)
        smaller, other = tx.update(grads(alone), other, alone, value_fn=values)
        return *(optax.apply_updates(params, updates), state), *(
            optax.apply_updates(alone, smaller),
            other,
        )

    alone = {"w": PARAMS["w"]}
    carry = (PARAMS, masked.init(PARAMS), alone, tx.init(alone))
    for _ in range(4):
        carry = advance(*carry)
    np.testing.assert_allclose(carry[0]["w"], carry[2]["w"], rtol=1e-5)
    assert float(carry[0]["b"]) == 0.5


def test_masked_nodes_are_refused_with_the_way_to_do_it(transformation):
    """Inside `optax.masked` and `partition`, `value_fn` would see a mutilated tree."""
    wrapped = optax.masked(transformation.plain(), FROZEN)
    parted = optax.partition({True: transformation.plain(), False: optax.set_to_zero()}, FROZEN)
    for tx in (wrapped, parted):
        state = tx.init(PARAMS)
        with pytest.raises(ValueError, match="mask="):
            jax.eval_shape(
                lambda p, s, tx=tx: transformation.step(tx, p, s, batch_at(BATCHES, 0), loss_fn),
                PARAMS,
                state,
            )


def test_accumulated_gradients_are_stepped_along(transformation):
    """`optax.MultiSteps` keeps the form of the state through its `cond`.

    It hands on the gradient of all mini-batches with the `value_fn` of the last one. Nothing in
    these arguments tells, so that there is nothing to refuse; `chunk_size` of `per_example` is
    the supported way.
    """
    tx = optax.MultiSteps(transformation.plain(), 2)
    state = jax.eval_shape(tx.init, PARAMS)
    step = functools.partial(transformation.step, tx, loss_fn=loss_fn)
    new = jax.eval_shape(step, PARAMS, state, batch=batch_at(BATCHES, 0))
    assert signature(new) == signature((jax.eval_shape(lambda: PARAMS), state))


def test_accumulated_gradients_descend(transformations):
    tx = optax.MultiSteps(meka(), 2)
    step = functools.partial(transformations["meka"].step, tx, loss_fn=loss_fn)
    advance = jax.jit(lambda params, state, batch: step(params, state, batch))
    carry = [(PARAMS, tx.init(PARAMS))]
    for i in range(STEPS):
        carry.append(advance(*carry[-1], batch_at(BATCHES, i)))
    moved = [bool(np.any(a[0]["w"] != b[0]["w"])) for a, b in itertools.pairwise(carry)]
    assert moved == [False, True] * (STEPS // 2)
    batch = jax.tree.map(jnp.concatenate, BATCHES)
    before, after = (jax.vmap(loss_fn, (None, 0))(p, batch).mean() for p, _ in carry[::STEPS])
    assert after < 0.5 * before


@pytest.mark.parametrize("mask", [{"v": True}, {"w": {"a": True}, "b": True}, [True, False]])
def test_masks_that_fit_no_parameters_are_named(mask):
    with pytest.raises(ValueError, match="expected mask to be True or False for leaves or whole"):
        adameka(mask=mask).init({"w": jnp.ones(2), "b": jnp.ones(())})


def test_rank_promotion_may_be_an_error(transformation):
    """For users who set it to find mistakes of their own: ours broadcast explicitly."""
    tx = transformation.plain()
    with jax.numpy_rank_promotion("raise"):
        state = jax.eval_shape(tx.init, PARAMS)
        step = functools.partial(transformation.step, tx, loss_fn=loss_fn)
        new = jax.eval_shape(step, PARAMS, state, batch=batch_at(BATCHES, 0))
        jax.eval_shape(metrics, new[1])
