"""NaN in the loss, the gradient and the curvature, also inside `optax.apply_if_finite`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.curvature import per_example
from mekax.optimizers import Outcome, adameka, meka, metrics, scale_by_expected_improvement

PATIENCE = 2
PARAMS = {"w": jnp.array([2.0, -1.0, 0.5]), "none": None}
BATCH = {
    "x": jnp.linspace(0.5, 1.5, 12).reshape(4, 3),
    "value": jnp.zeros(4),
    "curvature": jnp.zeros(4),
}
NAN_VALUE = BATCH | {"value": jnp.array([0.0, jnp.nan, 0.0, 0.0])}
NAN_CURVATURE = BATCH | {"curvature": jnp.array([0.0, jnp.nan, 0.0, 0.0])}
INFINITE_CURVATURE = BATCH | {"curvature": jnp.array([0.0, jnp.inf, 0.0, 0.0])}


@jax.custom_jvp
def flat(w, curvature):
    """0, with a slope of 0 and a second derivative of any value."""
    return jnp.zeros_like(w)


@jax.custom_jvp
def slope(w, curvature):
    return jnp.zeros_like(w)


@flat.defjvp
def _(primals, tangents):
    return flat(*primals), slope(*primals) * tangents[0]


@slope.defjvp
def _(primals, tangents):
    return slope(*primals), primals[1] * tangents[0]


def loss_fn(params, example):
    """A quadratic whose value or curvature, and nothing else, can be made not finite."""
    bent = jnp.sum(flat(params["w"], example["curvature"]))
    return jnp.sum(jnp.square(example["x"] * params["w"])) + example["value"] + bent


def finite(tree):
    return all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(tree))


def rejections(state):
    """Batches left out because something was not finite, summed over all who count them."""
    return sum(int(count) for _, count in optax.tree.get_all_with_path(state, "num_rejected"))


def test_the_traps_are_what_they_say():
    for batch, bad in ((BATCH, None), (NAN_VALUE, 0), (NAN_CURVATURE, 2), (INFINITE_CURVATURE, 2)):

        def mean(p, batch=batch):
            return jax.vmap(loss_fn, (None, 0))(p, batch).mean()

        gradient, product = jax.jvp(jax.grad(mean), (PARAMS,), (PARAMS,))
        assert [finite(x) for x in (mean(PARAMS), gradient, product)] == [
            i != bad for i in range(3)
        ]


def test_nothing_poisons_the_state(transformation, transformations):
    """Bad batches of every kind, within and beyond the patience of `apply_if_finite`."""
    tx = optax.apply_if_finite(transformation.plain(), PATIENCE)

    @jax.jit
    def advance(params, state, batch, noise):
        return transformation.step(tx, params, state, batch, loss_fn, noise)

    def repeat(carry, times, batch=BATCH, noise=0.0, rejected=0):
        before = rejections(carry[1])
        for _ in range(times):
            carry = advance(*carry, batch, noise)
            assert finite(carry)
        # In a chain each transformation counts what it leaves out itself.
        counted = rejections(carry[1]) - before
        assert rejected <= counted <= rejected * len(carry[1].inner_state)
        return carry

    # Already the first batches may be bad.
    start = repeat((PARAMS, tx.init(PARAMS)), PATIENCE, noise=jnp.nan)
    assert int(start[1].total_notfinite) == PATIENCE
    start = repeat(start, 1, NAN_VALUE, rejected=1)

    # Past the fixed phase of a warm start, which follows gradients wherever they lead.
    good = repeat(start, 4)

    # Not the gradient: the wrapper does not notice, the transformation leaves it out by itself.
    bad = repeat(good, 2, NAN_VALUE, rejected=2)
    assert all(step_size == 0 for _, step_size in optax.tree.get_all_with_path(bad, "step_size"))
    if transformation.rate == 1:
        np.testing.assert_array_equal(bad[0]["w"], good[0]["w"])

    # Not what a step needs: the curvature is replaced, and the batch counts.
    bent = repeat(bad, 2, NAN_CURVATURE)
    bent = repeat(bent, 1, INFINITE_CURVATURE)
    assert not np.array_equal(bent[0]["w"], bad[0]["w"])
    assert int(bent[1].total_notfinite) == PATIENCE

    # The gradient: rejected by the wrapper, then passed on when it gives up.
    rejected = repeat(bent, PATIENCE, noise=jnp.nan)
    assert int(rejected[1].total_notfinite) == 2 * PATIENCE
    jax.tree.map(
        np.testing.assert_array_equal, (rejected[0], rejected[1].inner_state), (bent[0], bent[1][3])
    )
    # Moments of Optax's own would keep a NaN for good.
    if transformation is not transformations["adam+rule"]:
        rejected = repeat(rejected, 2, noise=jnp.nan, rejected=2)
        rejected = repeat(rejected, 1, noise=jnp.inf, rejected=1)

    # And all is well again.
    size = float(jnp.linalg.norm(good[0]["w"]))
    recovered = repeat(rejected, 60)
    assert float(jnp.linalg.norm(recovered[0]["w"])) < max(0.5 * size, 1e-3)


def test_an_unbounded_loss_does_not_send_narrow_numbers_to_infinity():
    tx, params = adameka(), jnp.full(3, 2e4, jnp.float16)  # which ends at 65,504
    state = tx.init(params)

    def value_fn(w):
        return -1e-4 * jnp.sum(w.astype(jnp.float32) ** 2) + jnp.zeros(4)

    @jax.jit
    def step(params, state):
        grads = jax.grad(lambda w: value_fn(w).mean())(params)
        updates, state = tx.update(grads, state, params, value_fn=value_fn)
        return optax.apply_updates(params, updates), state

    for _ in range(15):
        params, state = step(params, state)
    assert np.all((params > 6e4) & (params < np.inf))  # as far as it goes
    assert metrics(state)["num_rejected"] == 0


MAKERS = {
    "adameka": lambda: adameka(curvature_interval=1),
    "meka": lambda: meka(statistics="exact"),
    "rule": lambda: scale_by_expected_improvement(curvature_interval=1),
}


def train(tx, faults):
    """Parameters before each step and after the last, and metrics of each, for good and bad."""
    weights = jnp.array([1.0, 5.0, 25.0])
    good = iter(range(len(faults)))
    batches = jax.random.normal(jax.random.key(0), (len(faults), 8, 3))

    @jax.jit
    def step(params, state, batch, fault):
        value_fn = per_example(lambda w, x: fault * jnp.sum(weights * (w - x) ** 2), batch)
        value, grads = jax.value_and_grad(lambda p: value_fn(p).mean())(params)
        updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=value_fn)
        return optax.apply_updates(params, updates), state, metrics(state)

    params = jnp.array([3.0, -2.0, 4.0])
    state, path, known = tx.init(params), [params], []
    for fault in faults:
        batch = batches[next(good)] if np.isfinite(fault) else batches[0]
        params, state, read = step(params, state, batch, fault)
        path.append(params)
        known.append({name: float(x) for name, x in read.items()})
    return np.asarray(path), known


@pytest.mark.parametrize("make", MAKERS)
def test_training_goes_on_as_on_the_good_batches_alone(make):
    """A batch that is not finite leaves no trace but its count, whenever it comes."""
    bad = [jnp.nan, jnp.inf, jnp.nan, -jnp.inf]
    faults = [1.0] * 6 + bad + [1.0] * 3 + bad[:1] + [1.0] * 9
    path, known = train(MAKERS[make](), faults)
    expected, others = train(MAKERS[make](), [fault for fault in faults if np.isfinite(fault)])
    kept = np.isfinite(faults)
    np.testing.assert_allclose(path[1:][kept], expected[1:], rtol=1e-6)
    np.testing.assert_array_equal(path[1:][~kept], path[:-1][~kept])
    assert [int(k["num_rejected"]) for k in known] == np.cumsum(~kept).tolist()
    for k, good in zip(known, kept, strict=True):
        assert (k["outcome"] == Outcome.SKIPPED) is not bool(good)
        assert bool(k["step_size"]) is bool(good)
    assert others[-1]["num_rejected"] == 0


@pytest.mark.parametrize("make", MAKERS)
def test_ten_bad_batches_in_a_row_take_the_step_back(make):
    """Once: what is bad from the start, or after that, blames nobody."""
    path, known = train(MAKERS[make](), [jnp.nan] * 7 + [1.0] * 10 + [jnp.nan] * 12 + [1.0] * 40)
    outcomes = [Outcome(int(k["outcome"])) for k in known]
    assert outcomes[:7] == [Outcome.SKIPPED] * 7
    np.testing.assert_array_equal(path[:8], path[:1].repeat(8, 0))
    # 17 batches have been seen; the last step led from path[16] to path[17].
    expected = [Outcome.SKIPPED] * 9 + [Outcome.REJECTED] + [Outcome.SKIPPED] * 2
    assert outcomes[17:29] == expected
    np.testing.assert_array_equal(path[17:27], path[17:18].repeat(10, 0))
    np.testing.assert_allclose(path[27:30], path[16:17].repeat(3, 0), rtol=1e-6)
    assert outcomes[29] == Outcome.NONE
    # The interval is halved, fading from the next good batch on; the radius itself stays.
    assert known[29]["radius"] == pytest.approx(known[16]["radius"], rel=1e-5)
    assert 0 < known[29]["step_size"] <= 2**-0.8 * known[16]["radius"] * (1 + 1e-3)
    assert np.sum(path[-1] ** 2) < 0.5 * np.sum(path[27] ** 2)


@pytest.mark.parametrize("fraction", [1 / 4, 2 / 3])
def test_rows_of_nan_cost_no_more_than_their_batches(fraction):
    """Some rows of the data are NaN: the end is that of as many good steps on clean data."""
    x = jax.random.normal(jax.random.key(0), (2000, 10))
    y = jnp.tanh(x @ jax.random.normal(jax.random.key(5), (10, 8))).sum(1)
    rows = round(-2000 * np.log(1 - fraction) / 64)  # of which a batch of 64 is free by chance
    spoilt = y.at[jax.random.permutation(jax.random.key(9), 2000)[:rows]].set(jnp.nan)
    start = {"w": 0.3 * jax.random.normal(jax.random.key(2), (10, 32)), "v": jnp.zeros(32)}
    tx = adameka()

    def losses(params, rows, y):
        return (jnp.tanh(x[rows] @ params["w"]) @ params["v"] - y[rows]) ** 2

    def step(carry, inputs):
        params, state, y = carry
        key, on = inputs
        rows = jax.random.randint(key, (64,), 0, 2000)
        value_fn = lambda p: losses(p, rows, y)  # noqa: E731
        value, grads = jax.value_and_grad(lambda p: value_fn(p).mean())(params)
        updates, new = tx.update(grads, state, params, value=value, grad=grads, value_fn=value_fn)
        moved = (optax.apply_updates(params, updates), new, y)
        return optax.tree.where(on, moved, carry), None

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0, 0))
    def train(y_seen, steps, seed):
        keys = jax.random.split(jax.random.key(seed), 600)
        inputs = (keys, jnp.arange(600) < steps)
        (params, state, _), _ = jax.lax.scan(step, (start, tx.init(start), y_seen), inputs)
        return losses(params, jnp.arange(2000), y).mean(), metrics(state)["num_rejected"]

    seeds = jnp.arange(4)
    with_faults, rejected = train(spoilt, jnp.full(4, 600), seeds)
    np.testing.assert_allclose(rejected / 600, fraction, atol=0.1)
    clean, none = train(y, 600 - rejected, seeds)
    assert np.all(none == 0)
    assert np.exp(np.mean(np.log(with_faults / clean))) <= 1.3


def test_half_precision_without_a_gradient_makes_no_step():
    tx, params = adameka(), jnp.ones(3, jnp.float16)
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(0 * params, state, params, value_fn=lambda w: 0 * w)
    assert not updates.any()
    assert metrics(state)["num_rejected"] == 0


def test_a_square_beyond_the_range_leaves_averages_alone():
    tx, params = adameka(), jnp.array([1.0, 1.0])
    state = tx.init(params)

    @jax.jit
    def step(params, state, factor):
        value_fn = lambda w: factor * jnp.sum(w**2)  # noqa: E731
        updates, state = tx.update(jax.grad(value_fn)(params), state, params, value_fn=value_fn)
        return optax.apply_updates(params, updates), state

    for factor in (1.0, 1e20, *[1.0] * 60):
        params, state = step(params, state, factor)
    assert jnp.max(jnp.abs(params)) < 0.1
