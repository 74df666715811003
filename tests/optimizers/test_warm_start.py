import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.optimizers import (
    meka,
    metrics,
    scale_by_expected_improvement,
    scale_by_kalman_filter,
    warm_start,
)


def test_fixed_phase_is_the_schedule_then_the_rule(regression, train):
    losses, params, batches = regression
    schedule = optax.linear_schedule(0.2, 0.1, 10)
    first = jax.tree.map(lambda x: x[:10], batches)
    fixed, state, _ = train(warm_start(schedule, 10, meka()), losses, params, first)
    expected, _, _ = train(optax.sgd(schedule), losses, params, first)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), fixed, expected)
    assert float(metrics(state)["phase"]) == 0.0

    _, state, values = train(warm_start(schedule, 10, meka()), losses, params, batches)
    assert float(metrics(state)["phase"]) == 1.0
    assert np.mean(values[-20:]) < np.mean(values[:10])
    # The filter ran all along: its gain has settled at the switch.
    assert float(metrics(state)["gain"]) < 0.5


def test_filters_are_warm_at_the_switch(regression, train):
    losses, params, batches = regression
    _, state, _ = train(warm_start(0.1, 10_000, meka()), losses, params, batches)
    assert int(state.inner.filter.count) == 60
    assert float(metrics(state)["gain"]) < 0.5
    assert int(metrics(state)["num_adaptations"]) <= 1  # a step that is its own by chance


def test_criterion_fires_once_and_for_good():
    tx = warm_start(0.1, lambda m: m["loss_mean"] < 5.0, meka())
    params = jnp.array([4.0])
    state = tx.init(params)
    phases = []
    for shift in (0, 0, 0, 0, 0, 0, 20, 20):
        f = lambda p, s=shift: jnp.sum(p**2) + s  # noqa: E731
        updates, state = tx.update(2 * params, state, params, value_fn=f)
        phases.append(bool(state.adaptive))
        params = optax.apply_updates(params, updates)
    assert phases[0] is False
    assert phases[-1] is True
    assert phases == sorted(phases)


def test_works_along_any_direction(regression, train):
    losses, params, batches = regression
    tx = optax.chain(scale_by_kalman_filter(), warm_start(0.1, 5, scale_by_expected_improvement()))
    _, state, values = train(tx, losses, params, batches)
    assert np.all(np.isfinite(values))
    assert np.mean(values[-20:]) < 0.9 * values[0]
    assert set(metrics(state)) >= {"phase", "gain", "step_size"}


def test_switch_at_zero_is_the_rule_itself(regression, train):
    losses, params, batches = regression
    batches = jax.tree.map(lambda x: x[:15], batches)
    a, _, _ = train(warm_start(0.1, 0, meka()), losses, params, batches)
    b, _, _ = train(meka(), losses, params, batches)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), a, b)


@pytest.mark.parametrize(
    ("until", "error"),
    [
        (-1, ValueError),
        (2.5, TypeError),
        (True, TypeError),
        (jnp.float32(3), TypeError),
        (jnp.arange(2), TypeError),
    ],
)
def test_bad_switch_is_named(until, error):
    with pytest.raises(error, match="until"):
        warm_start(0.1, until, meka())


def test_a_criterion_of_unknown_metrics_is_told_the_known_ones():
    tx, params = warm_start(0.1, lambda known: known["nope"] < 1, meka()), jnp.ones(2)
    with pytest.raises(KeyError, match=r"got 'nope'. It has: .*gain.*snr"):
        tx.update(2 * params, tx.init(params), params, value_fn=lambda p: jnp.sum(p**2))
