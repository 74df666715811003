"""The rule as a whole: what it does with the extremes, and when it measures."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.optimizers import (
    Outcome,
    adameka,
    improvement_threshold,
    meka,
    metrics,
    newton_trust_region,
    scale_by_expected_improvement,
    warm_start,
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
        assert float(params[0]) == pytest.approx(2 - 0.4 * 2, rel=1e-3)
        assert float(metrics(state)["step_size"]) == pytest.approx(0.4 / 6, rel=1e-3)
        assert abs(float(final[0])) < 1e-3


def test_negative_curvature_gives_a_finite_descending_step():
    f = lambda p: jnp.cos(p[0]) + 0.5 * p[1] ** 2  # noqa: E731
    start = jnp.array([0.01, 0.0])  # next to the maximum of the cosine
    for make in (
        meka,
        adameka,
        lambda: meka(improvement_threshold(0.9), trust_region=newton_trust_region()),
    ):
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
    assert int(metrics(state)["num_rejected"]) == 0
    assert all(np.isfinite(float(x)) for x in metrics(state).values())


def test_linear_and_unbounded_losses_stay_finite():
    params, state = minimize(meka(), lambda p: jnp.sum(p), jnp.ones(3), 20)
    assert np.all(np.isfinite(params))
    assert np.all(params < 0)
    assert int(metrics(state)["num_rejected"]) == 0


def test_a_way_leads_past_zero():
    """From equal entries a step as long as the parameters ends next to 0: others follow it."""
    tx = adameka()

    def last(start, minimum):
        def step(carry, _):
            params, state = carry
            grads = jax.grad(f)(params)
            updates, state = tx.update(grads, state, params, value_fn=f)
            return (params + updates, state), None

        f = lambda p: jnp.sum((p - minimum) ** 2)  # noqa: E731
        params = jnp.full(3, start)
        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=100)
        return f(params)

    starts, minima = jnp.meshgrid(jnp.arange(2.0, 11.0), jnp.array([-1.0, 1.0]))
    assert float(jnp.max(jax.jit(jax.vmap(jax.vmap(last)))(starts, minima))) < 1e-2


def test_step_size_cap_holds():
    _, state = minimize(meka(max_step_size=0.01), lambda p: jnp.sum(p**2), jnp.ones(3), 5)
    assert float(metrics(state)["step_size"]) == pytest.approx(0.01, rel=1e-5)


def noisy_steps(trust_region, steps=300):
    """Gradients that are almost all noise: a rule must learn to distrust its slope."""
    rng = np.random.default_rng(0)
    noise = jnp.asarray(rng.normal(size=(steps, 8, 20)), jnp.float32)
    tx = scale_by_expected_improvement("expected_improvement", trust_region)

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
    return np.asarray(excess), metrics(state)


def test_the_radius_falls_where_slopes_are_noise():
    """At the optimum of a noisy quadratic the published rule jumps about; adaptation calms it."""
    wild, _ = noisy_steps(newton_trust_region())
    calm, known = noisy_steps(None)
    assert float(known["radius"]) < 0.2
    assert abs(float(known["slope_ratio"])) < 0.5
    assert np.mean(calm[-50:]) < 0.25 * np.mean(wild[-50:])


def test_a_trust_region_that_only_bounds_steps_needs_an_acquisition():
    with pytest.raises(ValueError, match=r"expected an acquisition .* got None. Pass acquisition="):
        adameka(trust_region=newton_trust_region())


def test_steps_of_others_do_not_move_the_radius():
    tx = meka()
    params = jnp.array([4.0])
    state = tx.init(params)
    for _ in range(5):
        _, state = tx.update(2 * params, state, params, value_fn=lambda p: jnp.sum(p**2))
        params = params - 0.01 * 2 * params  # far shorter than the steps proposed
    assert int(metrics(state)["num_adaptations"]) == 0
    assert float(metrics(state)["radius"]) == pytest.approx(0.4 * 0.5, rel=1e-3)  # of a/h = 1/2


# Adam's ε is absolute, so that losses with gradients near it are not those of other units.
@pytest.mark.parametrize(
    ("make", "scale"),
    [
        *((meka, scale) for scale in (1e-6, 1e6)),
        *((adameka, scale) for scale in (1e-4, 1e6)),
        (scale_by_expected_improvement, 1e-22),  # float32 has no squares of such gradients
    ],
)
def test_scaling_the_loss_changes_nothing(make, scale, regression, train):
    losses, params, batches = regression
    batches = jax.tree.map(lambda x: x[:30], batches)
    reference, _, _ = train(make(), losses, params, batches)
    scaled, _, _ = train(make(), lambda p, b: scale * losses(p, b), params, batches)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0.02, atol=0.02), reference, scaled
    )


def test_steps_cut_short_do_not_raise_the_radius():
    _, state = minimize(meka(max_step_size=0.01), lambda p: jnp.sum(p**2), jnp.ones(3), 30)
    assert float(metrics(state)["radius"]) <= 0.3 / 2 * (1 + 1e-3)


def test_a_switch_finds_the_radius_fresh(regression, train):
    """Steps made by others leave no trace: the first own one is measured by today's curvature."""
    losses, params, batches = regression
    tx = warm_start(0.02, 40, adameka())
    before, state, _ = train(tx, losses, params, jax.tree.map(lambda x: x[:40], batches))
    assert int(metrics(state)["num_adaptations"]) <= 1
    after, state, _ = train(tx, losses, params, jax.tree.map(lambda x: x[:41], batches))
    known = metrics(state)
    moved = np.sqrt(sum(float(jnp.sum((after[k] - before[k]) ** 2)) for k in params))
    newton = -float(known["slope"]) / abs(float(known["curvature"]))
    assert 0 < moved <= 0.31 * newton


def curvatures(tx, losses, batches, params, rate=1.0):
    """Curvature, slope and count of adaptations after each step, of one compiled program."""

    def step(carry, batch):
        params, state = carry
        value_fn = lambda p: losses(p, batch)  # noqa: E731
        grads = jax.grad(lambda p: value_fn(p).mean())(params)
        updates, state = tx.update(grads, state, params, grad=grads, value_fn=value_fn)
        updates = optax.tree.scale(rate, updates)
        return (optax.apply_updates(params, updates), state), (params, metrics(state))

    run = jax.jit(lambda c: jax.lax.scan(step, c, batches))
    _, (path, known) = run((params, tx.init(params)))
    return path, {name: np.asarray(x) for name, x in known.items()}


def bent_by_the_batch(params, batch):
    """Losses whose curvature differs from batch to batch."""
    weights = jnp.array([1.0, 5.0, 25.0])
    return 0.5 * jnp.sum(weights * (1 + batch**2) * (params - 0.3 * batch) ** 2, axis=1)


BATCHES = jax.random.normal(jax.random.key(0), (200, 8, 3))


@pytest.mark.parametrize("interval", [10, 25])
def test_the_curvature_is_measured_now_and_then(interval):
    """At each of the first twenty steps learned from, and where one is due or looks wrong."""
    tx = adameka(curvature_interval=interval)
    _, known = curvatures(tx, bent_by_the_batch, BATCHES, jnp.ones(3))
    measured = set(np.flatnonzero(np.diff(known["curvature"]) != 0) + 1)
    # The step measured first is none to learn from, so the twentieth of these is step 20.
    assert measured >= {*range(1, 21), *range(2 * interval, 200, interval)}
    assert len(measured) < 20 + 200 / interval + 40
    assert len(np.unique(known["slope"])) == 200  # the slope is that of each batch


def test_steps_of_others_have_the_curvature_measured_at_every_step():
    tx = adameka()
    _, known = curvatures(tx, bent_by_the_batch, BATCHES[:60], jnp.ones(3), rate=0.3)
    assert np.all(known["num_adaptations"] == 0)
    # Batches that see no descent make no step, which nobody can shorten.
    assert set(known["outcome"][1:]) <= {Outcome.EXTERNAL, Outcome.NONE}
    assert np.all(np.diff(known["curvature"]) != 0)


@pytest.mark.parametrize("interval", [2, 50])
def test_a_curvature_that_stays_need_not_be_measured(interval):
    """Along every line of ‖θ − c‖² it is the same, whichever batch is asked, but for its noise."""

    def losses(params, batch):
        return jnp.sum((params - batch) ** 2, axis=1)

    # Half the Newton step of the mean slope, at most: no decision asks for the noise of the slope.
    region = newton_trust_region(0.5)
    paths = [
        curvatures(
            adameka("expected_decrease", region, curvature_interval=n),
            losses,
            BATCHES,
            jnp.full(3, 4.0),
        )[0]
        for n in (interval, 1)
    ]
    np.testing.assert_allclose(*paths, rtol=1e-3, atol=1e-4)


def test_outcomes_name_what_became_of_a_step():
    """Chosen, cut short, made by others, swallowed by rounding, not finite, taken back."""
    value_fn = lambda p, fault: fault * jnp.sum((p - 3) ** 2)  # noqa: E731
    tx = scale_by_expected_improvement(max_step_size=0.05)  # of the Newton step 0.5

    @jax.jit
    def update(params, state, fault):
        grads = jax.grad(value_fn)(params, fault)
        updates, state = tx.update(
            grads, state, params, grad=grads, value_fn=lambda p: value_fn(p, fault)
        )
        return updates, state, metrics(state)["outcome"]

    params, outcomes = jnp.zeros(3), []
    state = tx.init(params)
    factors = [1.0, 1.0, 1.0, 1.0, 0.5, 0.0, 1.0, *[jnp.nan] * 10, 1.0, 1.0]
    for factor in factors:
        updates, state, outcome = update(params, state, 1.0 if np.isfinite(factor) else jnp.nan)
        outcomes.append(Outcome(int(outcome)).name)
        params = params + updates * (factor if np.isfinite(factor) else 1.0)
    made = ["NONE", "TAKEN", "TAKEN", "TRUNCATED", "TRUNCATED", "EXTERNAL", "NONE"]
    assert outcomes == [*made, *["SKIPPED"] * 9, "REJECTED", "NONE", "TRUNCATED"]


def test_steps_along_nothing_teach_nothing():
    """Gradients of 0 do not lengthen the radius, as steps do that rounding has swallowed."""
    value_fn = lambda p: 1e-3 * jnp.sum(jnp.maximum(p - 2, 0) ** 2)  # noqa: E731
    tx = scale_by_expected_improvement()

    @jax.jit
    def step(params, state):
        grads = jax.grad(value_fn)(params)
        updates, state = tx.update(grads, state, params, grad=grads, value_fn=value_fn)
        return params + updates, state

    params = jnp.full(3, 4.0)
    state = tx.init(params)
    for _ in range(4):
        params, state = step(params, state)
    flat, learned = jnp.ones(3), []
    for _ in range(60):
        params, state = step(flat, state)
        learned.append(float(state.step.trust.log_step_size))
    np.testing.assert_array_equal(params, flat)
    assert learned[-1] <= learned[1]


def test_everything_a_chain_hands_on_may_come_or_not():
    """`value=` and `grad=` save work and change nothing but rounding."""
    tx = optax.chain(optax.scale_by_adam(), scale_by_expected_improvement())

    def end(**given):
        def step(carry, batch):
            params, state = carry
            value_fn = lambda p: bent_by_the_batch(p, batch)  # noqa: E731
            value, grads = jax.value_and_grad(lambda p: value_fn(p).mean())(params)
            known = {"value": value, "grad": grads}
            extra_args = {name: known[name] for name in given}
            updates, state = tx.update(grads, state, params, value_fn=value_fn, **extra_args)
            return (optax.apply_updates(params, updates), state), None

        start = (jnp.ones(3), tx.init(jnp.ones(3)))
        return jax.jit(lambda c: jax.lax.scan(step, c, BATCHES[:15])[0][0])(start)

    bare = end()
    for given in ({"grad": 1}, {"value": 1}, {"value": 1, "grad": 1}):
        np.testing.assert_allclose(end(**given), bare, rtol=1e-4)
