"""The rule on scalars: what it does with the extremes, and how the trust closes its loop."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.curvature import DirectionalStatistics
from mekax.optimizers import (
    adameka,
    improvement_threshold,
    meka,
    metrics,
    scale_by_expected_improvement,
    warm_start,
)
from mekax.optimizers._adameka import along_momentum
from mekax.optimizers._expected_improvement import step_rule
from mekax.optimizers._step_rule import (
    DEFAULT,
    Ahead,
    Behind,
    Constants,
    choose_length,
    init_step_rule,
    logarithmic_clock,
    refuse_step,
)


def minimize(tx, f, params, steps):
    """Parameters and state after some steps."""
    return trajectory(tx, f, params, steps)[-1]


def trajectory(tx, f, params, steps):
    """Parameters and state after each of some steps, of one compiled program."""

    @jax.jit
    def step(params, state):
        grads = jax.grad(lambda p: jnp.mean(f(p)))(params)
        updates, state = tx.update(grads, state, params, value_fn=f)
        return optax.apply_updates(params, updates), state

    points = [(params, tx.init(params))]
    for _ in range(steps):
        points.append(step(*points[-1]))
    return points[1:]


@pytest.mark.parametrize(
    "acquisition",
    ["expected_improvement", "probability_of_improvement", "expected_decrease"],
)
def test_first_step_is_a_part_of_the_newton_step(acquisition):
    f = lambda p: 3 * jnp.sum(p**2)  # noqa: E731
    (params, state), *_, (final, _) = trajectory(meka(acquisition), f, jnp.array([2.0]), 60)
    if acquisition == "probability_of_improvement":
        # Any decrease is certain without noise, so every step in the interval is as good.
        assert 0 < float(params[0]) < 2.0
    else:
        assert float(params[0]) == pytest.approx(2 - 0.3 * 2, rel=1e-3)
        assert float(metrics(state)["step_size"]) == pytest.approx(0.3 / 6, rel=1e-3)
        assert abs(float(final[0])) < 1e-3


def test_negative_curvature_gives_a_finite_descending_step():
    f = lambda p: jnp.cos(p[0]) + 0.5 * p[1] ** 2  # noqa: E731
    start = jnp.array([0.01, 0.0])  # next to the maximum of the cosine
    for make in (meka, adameka, lambda: meka(improvement_threshold(0.9), calibrate=False)):
        (one, state), *rest = trajectory(make(), f, start, 150)
        assert float(metrics(state)["curvature"]) < 0
        assert float(f(one)) < float(f(start))
        values = [float(f(params)) for params, _ in rest]
        assert min(values) < -0.9
        # Without the loop steps may leave again, of up to three times the way to the minimum.
        assert values[-1] < -0.9 or make not in (meka, adameka)


@pytest.mark.parametrize("make", [meka, adameka, scale_by_expected_improvement])
def test_zero_gradients_make_no_step(make):
    params, state = minimize(make(), lambda p: 0.0 * jnp.sum(p**2) + 1.0, jnp.ones(3), 3)
    assert params.tolist() == [1.0, 1.0, 1.0]
    assert int(metrics(state)["skipped"]) == 0
    assert all(np.isfinite(float(x)) for x in metrics(state).values())


def test_linear_and_unbounded_losses_stay_finite():
    params, state = minimize(meka(), lambda p: jnp.sum(p), jnp.ones(3), 20)
    assert np.all(np.isfinite(params))
    assert np.all(params < 0)
    assert int(metrics(state)["skipped"]) == 0


def test_step_size_cap_holds():
    _, state = minimize(meka(max_step_size=0.01), lambda p: jnp.sum(p**2), jnp.ones(3), 5)
    assert float(metrics(state)["step_size"]) == pytest.approx(0.01, rel=1e-5)


def noisy_steps(calibrate, steps=300):
    """Gradients that are almost all noise: an honest rule must learn to distrust its slope."""
    rng = np.random.default_rng(0)
    noise = jnp.asarray(rng.normal(size=(steps, 8, 20)), jnp.float32)
    tx = optax.chain(scale_by_expected_improvement(calibrate=calibrate))

    def step(carry, xi):
        params, state = carry

        def value_fn(p):
            return 0.5 * jnp.sum((p - xi) ** 2, axis=1)

        grads = jax.grad(lambda p: value_fn(p).mean())(params)
        updates, state = tx.update(grads, state, params, value_fn=value_fn)
        params = optax.apply_updates(params, updates)
        return (params, state), jnp.sum(params**2)

    params = jnp.zeros(20)
    (_, state), excess = jax.lax.scan(step, (params, tx.init(params)), noise)
    return np.asarray(excess), metrics(state[0])


def test_trust_falls_where_slopes_are_noise():
    """At the optimum of a noisy quadratic the plain step rule jumps about; the loop calms it."""
    wild, _ = noisy_steps(calibrate=False)
    calm, gauges = noisy_steps(calibrate=True)
    assert float(gauges["trust"]) < 0.2
    assert abs(float(gauges["calibration"])) < 0.5
    assert np.mean(calm[-50:]) < 0.25 * np.mean(wild[-50:])


def test_steps_of_others_do_not_move_the_trust():
    tx = meka()
    params = jnp.array([4.0])
    state = tx.init(params)
    for _ in range(5):
        _, state = tx.update(2 * params, state, params, value_fn=lambda p: jnp.sum(p**2))
        params = params - 0.01 * 2 * params  # far shorter than the steps proposed
    assert int(metrics(state)["lessons"]) == 0
    assert float(metrics(state)["trust"]) == pytest.approx(0.3 * 0.5, rel=1e-3)  # of a/h = 1/2


@pytest.mark.parametrize("make", [meka, adameka, scale_by_expected_improvement])
def test_a_bad_batch_is_skipped_and_left_behind(make):
    tx = make()
    params = jnp.array([1.0, -2.0])
    state = tx.init(params)

    @jax.jit
    def advance(params, state, scale):
        f = lambda p: scale * jnp.sum(jnp.array([1.0, 5.0]) * p**2) * jnp.ones(4)  # noqa: E731
        grads = jax.grad(lambda p: f(p).mean())(params)
        updates, state = tx.update(grads, state, params, value_fn=f)
        return optax.apply_updates(params, updates), state

    points = [params]
    for scale in (1.0, 1.0, jnp.nan, jnp.inf):
        params, state = advance(params, state, scale)
        points.append(params)
    # Back to the last point at which all was well, and no farther.
    np.testing.assert_allclose(points[3], points[1], rtol=1e-6)
    np.testing.assert_array_equal(points[4], points[3])
    assert int(metrics(state)["skipped"]) == 2
    for _ in range(150):
        params, state = advance(params, state, 1.0)
    assert float(jnp.sum(params**2)) < 1e-3
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(jax.tree.map(np.asarray, state)))


@pytest.mark.parametrize("make", [meka, adameka])
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_scaling_the_loss_changes_nothing(make, scale, regression, train):
    losses, params, batches = regression
    batches = jax.tree.map(lambda x: x[:30], batches)
    reference, _, _ = train(make(), losses, params, batches)
    scaled, _, _ = train(make(), lambda p, b: scale * losses(p, b), params, batches)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0.02, atol=0.02), reference, scaled
    )


@pytest.mark.parametrize("h", [1e-3, 3.0, 1e4])
def test_trust_settles_a_little_beyond_the_minimum_of_the_line(h):
    """On the line −L + ½ h L² at every step, slope over curvature is 0.1 where L h = 1/0.9."""
    number = jnp.float32
    ahead = Ahead(number(1), number(0), number(h), number(0), number(1))
    zero = number(0)

    @jax.jit
    def step(state):
        moved = state.length
        seen = DirectionalStatistics(
            zero, zero, moved * (moved * h - 1), zero, jnp.square(moved) * h, zero
        )
        behind = Behind(moved, -moved, zero, seen)
        all_the_way = lambda model, length: length  # noqa: E731
        return choose_length(state, behind, ahead, number(1e9), all_the_way, True, 0.99)

    state = init_step_rule(jnp.dtype(jnp.float32))
    lengths = []
    for _ in range(300):
        state = step(state)
        lengths.append(float(state.length) * h)
    assert lengths[0] == pytest.approx(0.3, rel=1e-3)
    assert lengths[-1] == pytest.approx(1 / 0.9, rel=1e-2)
    assert max(lengths) < 1.2


def test_steps_cut_short_do_not_raise_the_trust():
    _, state = minimize(meka(max_step_size=0.01), lambda p: jnp.sum(p**2), jnp.ones(3), 30)
    assert float(metrics(state)["trust"]) <= 0.3 / 2 * (1 + 1e-3)


def test_a_switch_finds_the_trust_fresh(regression, train):
    """Steps made by others leave no trace: the first own one is measured by today's curvature."""
    losses, params, batches = regression
    tx = warm_start(0.02, 40, adameka())
    before, state, _ = train(tx, losses, params, jax.tree.map(lambda x: x[:40], batches))
    assert int(metrics(state)["lessons"]) <= 1
    after, state, _ = train(tx, losses, params, jax.tree.map(lambda x: x[:41], batches))
    known = metrics(state)
    moved = np.sqrt(sum(float(jnp.sum((after[k] - before[k]) ** 2)) for k in params))
    newton = float(known["slope"]) / abs(float(known["curvature"]))
    assert 0 < moved <= 0.31 * newton


def test_the_clock_of_lessons_is_logarithmic():
    """Between k and 10 k lessons the trust can move as far as between 10 k and 100 k."""
    rates = np.asarray(logarithmic_clock(jnp.arange(1, 100_001)), float)
    assert rates[0] == pytest.approx(2 / 11)
    late = rates[10_000:].sum()
    assert late == pytest.approx(2 * np.log(10), rel=0.01)
    assert late == pytest.approx(rates[1_000:10_000].sum(), rel=0.02)


def _late_exponent(constants):
    """d log τ / d log k over the last decade of lessons in which noise hides the slope.

    The loss no longer falls, so the slope after a step is half its curvature, and the noise of one
    batch is ten times that at the first step, more and more later.
    """
    number, zero = jnp.float32, jnp.float32(0)
    ahead = Ahead(number(1), zero, number(1), zero, number(1))
    farthest = lambda model, length: length  # noqa: E731

    def step(state, noise):
        kappa = jnp.square(state.length)
        slope = 0.5 * kappa + 1.5 * state.length * noise
        seen = DirectionalStatistics(zero, zero, slope, zero, kappa, zero)
        behind = Behind(state.length, -state.length, zero, seen)
        new = choose_length(state, behind, ahead, number(1e9), farthest, True, 0.99, constants)
        return new, new.log_trust

    noise = jax.random.normal(jax.random.key(0), (30_000,))
    trusts = jax.jit(lambda: jax.lax.scan(step, init_step_rule(jnp.dtype(jnp.float32)), noise)[1])()
    return float(trusts[-1] - trusts[3_000]) / np.log(10)


def test_steps_anneal_where_single_batches_see_noise():
    """Averages over a part of all lessons keep the clock going; a single batch stops it."""
    single = _late_exponent(Constants(memory=lambda lessons: 1.0))
    assert -0.1 < single < 0
    assert -0.6 < _late_exponent(DEFAULT) < -0.2


def test_a_refused_step_shortens_the_next_ones_for_a_while():
    """The interval is halved, recovers within ten good steps, and the trust is hardly touched."""
    number, zero = jnp.float32, jnp.float32(0)
    ahead = Ahead(number(1), zero, number(1), zero, number(1))
    farthest = lambda model, length: length  # noqa: E731

    @jax.jit
    def step(state):
        # What is left of the slope is exactly what is aimed at: the lesson is to change nothing.
        kappa = jnp.square(state.length)
        seen = DirectionalStatistics(zero, zero, 0.1 * kappa, zero, kappa, zero)
        behind = Behind(state.length, -state.length, zero, seen)
        return choose_length(state, behind, ahead, number(1e9), farthest, True, 0.99)

    state = init_step_rule(jnp.dtype(jnp.float32))
    for _ in range(100):
        state = step(state)
    before = float(state.length)
    refused = refuse_step(state)
    assert float(refused.length) == 0
    # A second bad batch, before any step was made, blames nobody.
    state = refuse_step(refused)
    assert float(state.caution) == float(refused.caution) == 1
    assert int(state.skipped) == 2
    lengths = []
    for _ in range(12):
        state = step(state)
        lengths.append(float(state.length) / before)
    assert lengths[0] == pytest.approx(2**-0.8, rel=0.05)
    assert lengths == sorted(lengths)
    assert lengths[9] > 0.9
    assert lengths[-1] > 0.92  # the lesson took 2/110 of the trust itself


def test_adameka_looks_at_the_curvature_now_and_then():
    """At each of the first twenty lessons and at every tenth step from then on."""
    weights = jnp.array([1.0, 5.0, 25.0])
    x = jax.random.normal(jax.random.key(0), (200, 8, 3))

    def losses(params, batch):  # each batch has a curvature of its own
        return 0.5 * jnp.sum(weights * (1 + batch**2) * (params - 0.3 * batch) ** 2, axis=1)

    tx = adameka()

    def step(carry, batch):
        params, state = carry
        f = lambda p: losses(p, batch)  # noqa: E731
        updates, state = tx.update(
            jax.grad(lambda p: f(p).mean())(params), state, params, value_fn=f
        )
        known = metrics(state)
        return (optax.apply_updates(params, updates), state), (known["curvature"], known["slope"])

    params = jnp.ones(3)
    _, (curvature, slope) = jax.lax.scan(step, (params, tx.init(params)), x)
    changed = np.flatnonzero(np.diff(np.asarray(curvature)) != 0) + 1
    # The step measured first is no lesson, so the twentieth is that of step 20.
    np.testing.assert_array_equal(changed, [*range(1, 21), *range(30, 200, 10)])
    assert len(np.unique(np.asarray(slope))) == 200  # the slope is that of each batch


@pytest.mark.parametrize("every", [2, 50])
def test_a_curvature_that_stays_need_not_be_looked_at(every):
    """Along every line of ‖θ − c‖² it is the same, whichever batch is asked."""
    x = jax.random.normal(jax.random.key(0), (120, 8, 3))

    def end(tx):
        def step(carry, batch):
            params, state = carry
            f = lambda p: jnp.sum((p - batch) ** 2, axis=1)  # noqa: E731
            grads = jax.grad(lambda p: f(p).mean())(params)
            updates, state = tx.update(grads, state, params, value_fn=f)
            return (optax.apply_updates(params, updates), state), None

        params = jnp.full(3, 4.0)
        return jax.lax.scan(step, (params, tx.init(params)), x)[0][0]

    rule = step_rule("expected_decrease", True, None, 0.99)
    np.testing.assert_allclose(
        end(along_momentum(rule, look_every=every)),
        end(along_momentum(rule, look_every=1)),
        rtol=1e-3,
    )
