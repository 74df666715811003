"""What the averages of the iterates do for the rule: where to evaluate, a way back, a new start."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.optimizers import Outcome, adameka, eval_params, meka, metrics, newton_trust_region

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(256, 6)), jnp.float32)
Y = jnp.sin(X.sum(1)) + 0.3 * jnp.asarray(RNG.normal(size=256), jnp.float32)
PARAMS = {
    "w": jnp.asarray(0.5 * RNG.normal(size=(6, 16)), jnp.float32),
    "v": jnp.asarray(0.3 * RNG.normal(size=16), jnp.float32),
}


def losses(params, x, y):
    return (jnp.tanh(x @ params["w"]) @ params["v"] - y) ** 2


def trained(tx, params, state, steps, targets=Y, start=0, scalar=False, batch_size=32, bad=()):
    """Train on batches; the parameters, the state, and by step the iterates and outcomes.

    At the steps `bad`, losses are not a number.
    """

    @jax.jit
    def run(params, state):
        def step(carry, drawn):
            params, state = carry
            key, factor = drawn
            rows = jax.random.choice(key, 256, (batch_size,))

            def value_fn(p):
                values = factor * losses(p, X[rows], targets[rows])
                return values.mean() if scalar else values

            grads = jax.grad(lambda p: value_fn(p).mean())(params)
            updates, state = tx.update(grads, state, params, grad=grads, value_fn=value_fn)
            known = {name: metrics(state)[name] for name in ("outcome", "num_adaptations")}
            return (optax.apply_updates(params, updates), state), (params, known)

        keys = jax.random.split(jax.random.key(start), steps)
        factors = jnp.ones(steps).at[jnp.array(bad, int)].set(jnp.nan)
        return jax.lax.scan(step, (params, state), (keys, factors))

    (params, state), (iterates, known) = run(params, state)
    return params, state, iterates, known


@pytest.fixture(scope="module")
def adam():
    tx = adameka()
    return tx, *trained(tx, PARAMS, tx.init(PARAMS), 600)


def loss(params, targets=Y):
    return float(jnp.mean(losses(params, X, targets)))


def averages(iterates):
    """The recursions of the docstring, in double precision: the long one and the short one."""
    found = np.zeros((2, *np.shape(iterates)[1:]))
    for k, iterate in enumerate(np.asarray(iterates, np.float64)):
        found[0] += 5 / (k + 5) * (iterate - found[0])
        found[1] += 40 / (k + 40) * (iterate - found[1])
    return found


def place(point, long, short):
    """How far a point is on the way from the long average to the short one; it lies on the way."""
    way = (short - long).ravel()
    found = np.dot((np.asarray(point) - long).ravel(), way) / np.dot(way, way)
    np.testing.assert_allclose(point, long + found * (short - long), atol=1e-5)
    assert -1e-3 <= found <= 1.001
    return found


def test_one_evaluates_between_two_averages_of_the_iterates(adam):
    _, params, state, iterates, known = adam
    assert Outcome.RETURNED not in known["outcome"]
    both = jax.tree.map(averages, iterates)
    long, short = (jax.tree.map(lambda pair, i=i: pair[i], both) for i in range(2))
    found = eval_params(state, params)
    place(found["w"], long["w"], short["w"])
    assert loss(found) < 1.01 * min(loss(long), loss(short))
    assert loss(found) < loss(params)


def test_there_is_no_average_where_the_trust_region_has_no_use_for_it():
    tx = meka("probability_of_improvement", trust_region=newton_trust_region())
    assert eval_params(tx.init(PARAMS), PARAMS) is PARAMS


def test_what_a_mask_holds_is_in_no_average():
    tx = adameka(mask={"w": True, "v": False})
    params, state, _, _ = trained(tx, PARAMS, tx.init(PARAMS), 30)
    average = eval_params(state, params)
    np.testing.assert_array_equal(average["v"], PARAMS["v"])
    assert np.any(average["w"] != params["w"])


def test_a_loss_that_rises_far_returns_to_the_average(adam):
    """Somebody throws the parameters far away; the rule brings them back."""
    tx, params, state, _, _ = adam
    thrown = jax.tree.map(lambda p: 3 * p, params)
    assert loss(thrown) > 10 * loss(params)
    back, state, _, known = trained(tx, thrown, state, 12, start=1)
    assert np.sum(np.asarray(known["outcome"]) == Outcome.RETURNED) == 1
    assert loss(back) < 2 * loss(params)  # the average has seen ten of those iterates


def test_a_rise_does_not_become_usual_before_it_is_certain(adam):
    """Fifty times what is usual: at the first look only of one example, at the next of all."""
    tx, params, state, _, _ = adam
    horizon = state[-1].horizon
    center = jax.tree.map(lambda a, b: a + (b - a) / 3, horizon.long, horizon.short)
    away = optax.tree.norm(optax.tree.sub(params, center), squared=True)

    @jax.jit
    def outcome(state, weights):
        def value_fn(p):
            rise = optax.tree.norm(optax.tree.sub(p, center), squared=True) / away
            return losses(p, X, Y) + 50 * horizon.usual * weights * rise

        grads = jax.grad(lambda p: value_fn(p).mean())(params)
        state = tx.update(grads, state, params, grad=grads, value_fn=value_fn)[1]
        return state, metrics(state)["outcome"]

    one, none, every = 256 * jax.nn.one_hot(0, 256), jnp.zeros(256), jnp.ones(256)
    found = []
    for weights in (one, *[none] * 9, every):
        state, became = outcome(state, weights)
        found.append(became == Outcome.RETURNED)
    assert found == [*[False] * 10, True]


@pytest.mark.parametrize("bad", [(), (1,)])
@pytest.mark.parametrize("make", [adameka, meka], ids=["adameka", "meka"])
def test_a_return_is_not_taken_for_a_step(make, bad):
    """It comes at once where the loss climbs, and nothing is learned from the way back.

    Not even after a batch that is left out.
    """
    tx = make()
    params, state, _, _ = trained(tx, PARAMS, tx.init(PARAMS), 103)  # between two looks
    thrown = jax.tree.map(lambda p: 3 * p, params)
    _, _, _, known = trained(tx, thrown, state, 12, start=1, bad=bad)
    returned = int(np.argmax(np.asarray(known["outcome"]) == Outcome.RETURNED))
    learned = np.asarray(known["num_adaptations"])
    assert returned == 0
    assert known["outcome"][returned] == Outcome.RETURNED
    after = returned + 1 + len(bad)
    assert known["outcome"][after] == Outcome.NONE
    assert learned[after] == learned[returned]


@pytest.mark.parametrize("make", [adameka, meka], ids=["adameka", "meka"])
@pytest.mark.parametrize("everywhere", [False, True])
def test_a_loss_that_is_finite_at_the_average_alone_returns_there(make, everywhere):
    """One example has no loss far out: the step is at fault, and not the batch."""
    tx = make()
    params, state, _, _ = trained(tx, PARAMS, tx.init(PARAMS), 103)
    thrown = jax.tree.map(lambda p: 3 * p, params)
    far = 2 * optax.tree.norm(params)

    @jax.jit
    def step(params, state):
        def value_fn(p):
            gone = (jnp.arange(256) == 0) & ((optax.tree.norm(p) > far) | everywhere)
            return jnp.where(gone, jnp.nan, losses(p, X, Y))

        grads = jax.grad(lambda p: value_fn(p).mean())(params)
        updates, state = tx.update(grads, state, params, grad=grads, value_fn=value_fn)
        return optax.apply_updates(params, updates), state

    back, state = step(thrown, state)
    assert metrics(state)["num_rejected"] == 1
    if everywhere:  # then nobody knows
        assert metrics(state)["outcome"] == Outcome.SKIPPED
        assert optax.tree.norm(optax.tree.sub(back, thrown)) == 0
        return
    assert metrics(state)["outcome"] == Outcome.RETURNED
    assert loss(back) < 1.1 * loss(params)
    again, state = step(back, state)
    assert metrics(state)["outcome"] == Outcome.NONE
    assert 0 < metrics(state)["step_size"] < jnp.inf
    assert loss(again) < 1.1 * loss(params)


def test_a_batch_without_a_gradient_says_nothing_of_the_averages(adam):
    """Not even where its losses are finite, and higher than ever."""
    tx, params, state, _, _ = adam
    nothing = jax.tree.map(lambda p: jnp.full_like(p, jnp.nan), params)
    step = jax.jit(
        lambda state: tx.update(
            nothing, state, params, grad=nothing, value_fn=lambda p: 100 + losses(p, X, Y)
        )[1]
    )
    after = state
    for _ in range(3):
        after = step(after)
    assert metrics(after)["outcome"] == Outcome.SKIPPED
    for name in ("average_gap", "iterate_gap"):
        assert metrics(after)[name] == metrics(state)[name]


@pytest.mark.parametrize("scalar", [False, True])
def test_a_new_problem_is_learned_as_fast_as_by_a_new_optimizer(adam, scalar):
    """Other targets after 600 steps: noticed, and within 1.3 of a fresh state."""
    tx, params, state, _, _ = adam
    targets = jnp.cos(2 * X[:, 0]) - 2
    new, state, _, known = trained(tx, params, state, 200, targets, start=2, scalar=scalar)
    fresh, other, _, _ = trained(tx, params, tx.init(params), 200, targets, start=2, scalar=scalar)
    assert int(known["num_adaptations"][-1]) < 200
    found = loss(eval_params(state, new), targets)
    assert found < 1.3 * loss(eval_params(other, fresh), targets)


@pytest.mark.parametrize(("scalar", "batch_size"), [(True, 32), (False, 1)])
def test_noise_that_a_batch_does_not_show_is_no_new_problem(scalar, batch_size):
    """A mean, or a single example, has no variance; how the loss jumps from look to look does."""
    tx = adameka()
    *_, known = trained(tx, PARAMS, tx.init(PARAMS), 600, scalar=scalar, batch_size=batch_size)
    assert np.all(np.diff(np.asarray(known["num_adaptations"])) >= 0)


def test_the_first_look_of_all_decides_nothing():
    """A loss far above 0 is no rise where none has been seen before, however late that is."""
    tx, params = adameka(curvature_interval=100, max_step_size=1e-3), jnp.ones(3)

    def step(carry, key):
        params, state = carry
        x = jax.random.normal(key, (16, 3))
        value_fn = lambda p: 5 + jnp.square(x @ p)  # noqa: E731
        grads = jax.grad(lambda p: value_fn(p).mean())(params)
        updates, state = tx.update(grads, state, params, grad=grads, value_fn=value_fn)
        return (params + updates, state), metrics(state)["num_adaptations"]

    keys = jax.random.split(jax.random.key(0), 450)
    learned = jax.jit(lambda c: jax.lax.scan(step, c, keys)[1])((params, tx.init(params)))
    assert np.all(np.diff(learned) >= 0)


@pytest.mark.parametrize(("spread", "sign"), [(0.0, -1), (3.0, 1)], ids=["progress", "noise"])
def test_progress_leaves_the_long_average_behind_and_noise_the_short_one(spread, sign):
    """On a bowl: D < 0 while the loss falls without noise, D > 0 where noise alone is left."""
    tx, params = adameka(), {"w": jnp.full((4,), 10.0 if sign < 0 else 0.0)}

    @jax.jit
    def run(params, keys):
        def step(carry, key):
            params, state = carry
            centers = spread * jax.random.normal(key, (8, 4))

            def value_fn(p):
                return jnp.sum((p["w"] - centers) ** 2, axis=1)

            grads = jax.grad(lambda p: value_fn(p).mean())(params)
            updates, state = tx.update(grads, state, params, grad=grads, value_fn=value_fn)
            return (optax.apply_updates(params, updates), state), params["w"]

        return jax.lax.scan(step, (params, tx.init(params)), keys)

    keys = jax.random.split(jax.random.key(0), 31 if sign < 0 else 1201)
    (params, state), iterates = run(params, keys)
    assert np.sign(float(metrics(state)["average_gap"])) == sign
    found = place(eval_params(state, params)["w"], *averages(iterates))
    assert found > 0.99 if sign < 0 else found < 0.2
