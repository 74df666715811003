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
)

KEYS = {
    "average_gap",
    "iterate_gap",
    "step_size",
    "step_size_std",
    "slope",
    "slope_std",
    "curvature",
    "curvature_std",
    "snr",
    "radius",
    "slope_ratio",
    "loss_mean",
    "loss_std",
    "predicted_change",
    "realized_change",
    "direction_norm",
    "num_rejected",
    "num_adaptations",
    "outcome",
    "differentiation",
    "gradient_mismatch",
    "gain",
    "gradient_snr",
}


def test_scalars_of_a_whole_optimizer_all_finite(regression, train):
    losses, params, batches = regression
    _, state, _ = train(meka(), losses, params, batches)
    read = jax.jit(metrics)(state)
    assert set(read) == KEYS
    assert all(x.shape == () and np.isfinite(float(x)) for x in read.values())


def test_found_however_deep():
    tx = optax.chain(
        optax.clip_by_global_norm(1.0),
        scale_by_kalman_filter(),
        optax.named_chain(("rule", scale_by_expected_improvement())),
    )
    assert set(metrics(tx.init(jnp.ones(2)))) == KEYS
    wrapped = optax.inject_hyperparams(meka)(max_step_size=0.1)
    assert set(metrics(wrapped.init(jnp.ones(2)))) == KEYS


def test_empty_for_others():
    assert metrics(optax.adam(1e-3).init(jnp.ones(2))) == {}


def test_predictions_of_a_quadratic_come_true():
    tx = meka()
    params, value_fn = jnp.array([2.0, 1.0]), lambda p: jnp.sum(jnp.array([1.0, 4.0]) * p**2)
    state = tx.init(params)
    before = metrics(state)
    for _ in range(3):
        predicted = float(before["predicted_change"])
        updates, state = tx.update(jax.grad(value_fn)(params), state, params, value_fn=value_fn)
        before = metrics(state)
        assert np.isclose(float(before["realized_change"]), predicted, rtol=1e-3)
        assert np.isclose(float(before["loss_mean"]), float(value_fn(params)), rtol=1e-6)
        params = optax.apply_updates(params, updates)


@pytest.mark.parametrize("make", [adameka, meka])
def test_finite_where_there_is_no_curvature(make):
    tx, params = make(), jnp.ones(3)

    def value_fn(w):
        return jnp.zeros(4) + 0 * w.sum()

    _, state = tx.update(jnp.zeros(3), tx.init(params), params, value_fn=value_fn)
    # Compiled: XLA turns a / b / c into a / (b c), which underflows.
    assert jnp.isfinite(jax.jit(metrics)(state)["step_size_std"])
