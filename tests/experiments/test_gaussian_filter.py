"""The Gaussian filter as a solver, against conditioning by hand and known solutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mekax.experiments.solvers import Belief, filter_step, integrate, observe

MATRIX = np.array([[-0.8, 0.5], [0.3, -1.7]])
pytestmark = pytest.mark.usefixtures("float64")


def conditioned(mean, covariance, row, value, variance):
    """The textbook's normal distribution of x given row x + noise = value."""
    across = covariance @ row.T
    within = row @ across + variance
    gain = across @ np.linalg.inv(within)
    return mean + gain @ (value - row @ mean), covariance - gain @ across.T


def test_step_of_a_linear_equation_conditions_the_joint_distribution():
    rng = np.random.default_rng(0)
    mean, factor, dt, deviation = rng.normal(size=2), rng.normal(size=(2, 2)), 0.7, [0.5, 1.3]
    force = np.array([0.2, -1.0])
    one, zero, scale = np.eye(2), np.zeros((2, 2)), np.diag(np.square(deviation))
    # y and its slope at the start, the latter known from y; both are carried on, with noise.
    lift = np.vstack([one, MATRIX])
    carry = np.block([[one, dt * one], [zero, one]])
    noise = np.block([[dt**3 / 3 * scale, dt**2 / 2 * scale], [dt**2 / 2 * scale, dt * scale]])
    joint = carry @ np.concatenate([mean, MATRIX @ mean + force])
    spread = carry @ lift @ (factor @ factor.T) @ (carry @ lift).T + noise
    expected = conditioned(joint, spread, np.hstack([-MATRIX, one]), force, 0 * one)
    found = filter_step(
        lambda t, y: MATRIX @ y + force,
        Belief(jnp.asarray(mean), jnp.asarray(factor @ factor.T)),
        jnp.asarray(0.0),
        jnp.asarray(dt),
        jnp.asarray(deviation),
    )
    np.testing.assert_allclose(found.mean, expected[0][:2], rtol=1e-10)
    np.testing.assert_allclose(found.covariance, expected[1][:2, :2], rtol=1e-9, atol=1e-12)


def test_observation_conditions_the_distribution():
    rng = np.random.default_rng(1)
    mean, factor, row = rng.normal(size=3), rng.normal(size=(3, 3)), rng.normal(size=3)
    covariance = factor @ factor.T
    expected = conditioned(mean, covariance, row[None], np.array([0.4]), 0.2)
    found = observe(Belief(jnp.asarray(mean), jnp.asarray(covariance)), row, 0.4, 0.2)
    np.testing.assert_allclose(found.mean, expected[0], rtol=1e-10)
    np.testing.assert_allclose(found.covariance, expected[1], rtol=1e-9, atol=1e-12)


def predator_and_prey(t, y):
    return jnp.stack([y[0] * (1 - y[1]) + 0.1 * jnp.sin(t), y[1] * (y[0] - 1)])


def test_mean_converges_with_the_square_of_the_step_and_the_deviation_bounds_the_error():
    start = jnp.array([1.5, 0.7])
    truth = integrate(predator_and_prey, start, 0.0, 3.0, steps=2_000)

    def solved(steps):
        dt = jnp.asarray(3.0 / steps)

        def step(belief, index):
            return filter_step(predator_and_prey, belief, index * dt, dt, jnp.ones(2)), None

        begin = Belief(start, jnp.zeros((2, 2)))
        return jax.lax.scan(step, begin, jnp.arange(steps))[0]

    coarse, fine = (jax.jit(solved, static_argnums=0)(steps) for steps in (100, 200))
    errors = [np.linalg.norm(belief.mean - truth) for belief in (coarse, fine)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.2)
    assert errors[0] < 2 * np.sqrt(np.trace(coarse.covariance))


def test_stiff_equations_and_steps_of_no_length():
    start = Belief(jnp.array([1.0, 2.0]), jnp.eye(2))
    field = lambda t, y: -1e6 * y  # noqa: E731
    stiff = filter_step(field, start, jnp.asarray(0.0), jnp.asarray(1.0), jnp.ones(2))
    assert np.all(np.abs(stiff.mean) < np.abs(start.mean))
    none = filter_step(field, start, jnp.asarray(0.0), jnp.asarray(0.0), jnp.ones(2))
    jax.tree.map(np.testing.assert_array_equal, none, start)

    def value(length):
        return filter_step(field, start, jnp.asarray(0.0), length, jnp.ones(2)).mean.sum()

    assert np.isfinite(jax.grad(value)(jnp.asarray(0.0)))
