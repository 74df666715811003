import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.curvature import exact, per_example
from mekax.optimizers import meka, scale_by_kalman_filter


def noisy_quadratic(hessian, batch):
    """Per-example losses ½ (θ − ξ)ᵀ H (θ − ξ), through `per_example`."""
    return per_example(lambda p, xi: 0.5 * jnp.dot(p - xi, hessian @ (p - xi)), batch)


def test_mean_is_the_average_of_all_transported_gradients(float64):
    """With an exact transport the gain is 1/(t + 1) and m averages every gradient seen."""
    rng = np.random.default_rng(0)
    hessian = jnp.diag(jnp.array([1.0, 0.1, 0.01]))
    tx = scale_by_kalman_filter(statistics="exact", decay=0.0)
    params = jnp.asarray(rng.normal(size=3))
    state = tx.init(params)
    transported, moved = [], jnp.zeros(3)
    for t in range(8):
        # The same deviations in every batch, so that Σ is the same at every step.
        deviations = jnp.asarray([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
        batch = deviations + jnp.asarray(rng.normal(size=3))
        value_fn = noisy_quadratic(hessian, batch)
        grads = jax.grad(lambda p, f=value_fn: f(p).mean())(params)
        transported = [g + hessian @ moved for g in transported]
        transported.append(grads)
        updates, state = tx.update(grads, state, params, value_fn=value_fn)
        np.testing.assert_allclose(updates, np.mean(transported, axis=0), rtol=1e-12)
        sigma = exact(value_fn, params, jnp.zeros(3)).gradient_variance
        assert float(state.belief.variance) == pytest.approx(float(sigma) / (t + 1), rel=1e-12)
        assert float(state.gain) == pytest.approx(1 / (t + 1), rel=1e-12)
        # Any displacement will do, not only one of the optimizer's own.
        moved = jnp.asarray(rng.normal(size=3))
        params = params + moved


def test_filters_toward_the_true_gradient(regression, train):
    losses, params, batches = regression
    whole = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batches)
    tx = optax.chain(scale_by_kalman_filter(), optax.scale(-0.1))
    params, state, _ = train(tx, losses, params, batches)
    truth = jax.grad(lambda p: losses(p, whole).mean())(params)
    last = jax.tree.map(lambda x: x[-1], batches)
    plain = jax.grad(lambda p: losses(p, last).mean())(params)

    def error(g):
        return float(optax.tree.norm(jax.tree.map(jnp.subtract, g, truth)))

    assert error(state[0].belief.mean) < 0.5 * error(plain)
    assert float(state[0].gain) < 0.5


@pytest.mark.parametrize("statistics", ["exact", "sketched"])
@pytest.mark.parametrize("covariance", ["scalar", "per_leaf", "diagonal"])
def test_every_structure_trains(statistics, covariance, regression, train):
    losses, params, batches = regression

    def step(carry, batch):
        params, state = carry
        f = per_example(losses, batch, chunk_size=5)
        grads = jax.grad(lambda p: f(p).mean())(params)
        updates, state = tx.update(grads, state, params, value_fn=f)
        return (optax.apply_updates(params, updates), state), f(params).mean()

    tx = meka(statistics=statistics, covariance=covariance)
    (_, state), values = jax.jit(lambda c, b: jax.lax.scan(step, c, b))(
        (params, tx.init(params)), batches
    )
    assert np.all(np.isfinite(values))
    assert np.mean(values[-20:]) < 0.9 * values[0]
    assert all(
        0 < float(k.min()) <= float(k.max()) <= 1 for k in jax.tree.leaves(state.filter.gain)
    )


def test_a_scalar_objective_is_followed_exactly():
    tx = scale_by_kalman_filter()
    params = jnp.array([1.0, 2.0])
    state = tx.init(params)
    for _ in range(3):
        grads = 4 * params**3
        updates, state = tx.update(grads, state, params, value_fn=lambda p: jnp.sum(p**4))
        np.testing.assert_array_equal(updates, grads)
        params = params - 0.01 * updates


def test_bad_measurements_leave_the_belief_alone():
    tx = scale_by_kalman_filter()
    params = jnp.array([1.0, 2.0])
    value_fn = lambda p: jnp.sum(p**2) * jnp.ones(3)  # noqa: E731
    _, good = tx.update(2 * params, tx.init(params), params, value_fn=value_fn)
    for grads, f in (
        (jnp.array([jnp.nan, 1.0]), value_fn),
        (2 * params, lambda p: jnp.sum(p**2) * jnp.array([1.0, jnp.inf, 1.0])),
    ):
        updates, state = tx.update(grads, good, params + 1, value_fn=f)
        np.testing.assert_array_equal(updates, good.belief.mean)
        assert int(state.num_rejected) == 1
        rest = jax.tree.map(np.asarray, state._replace(num_rejected=good.num_rejected))
        jax.tree.map(np.testing.assert_array_equal, rest, jax.tree.map(np.asarray, good))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_dtypes_are_kept(dtype):
    params = {"w": jnp.ones(3, dtype)}
    tx = scale_by_kalman_filter()
    state = tx.init(params)
    updates, new = tx.update(params, state, params, value_fn=lambda p: jnp.sum(p["w"] ** 2))
    assert updates["w"].dtype == dtype
    assert new.belief.mean["w"].dtype == jnp.float32
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(
        lambda x: (x.shape, x.dtype), new
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"covariance": "full"}, "'per_leaf'"),
        ({"statistics": "sampled"}, "'sketched' or 'exact'"),
        ({"decay": 1.0}, "below 1"),
    ],
)
def test_unknown_options_say_what_is_known(options, message):
    with pytest.raises(ValueError, match=message):
        scale_by_kalman_filter(**options)
