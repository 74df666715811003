"""The structured filters against dense Kalman filters, over random sequences, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from mekax.curvature import (
    GradientBelief,
    ValueBelief,
    correct_gradient,
    correct_value,
    predict_gradient,
    predict_value,
    quadratic_form,
)

from .dense import dense_gradient_filter, dense_value_filter

STEPS = 50
SHAPES = {"a": (2, 2), "b": (3,), "c": ()}


def tree(rng):
    return {k: jnp.asarray(rng.normal(size=s)) for k, s in SHAPES.items()}


def variance(rng, covariance):
    """A random positive variance in the given structure, and the dense matrix it stands for."""
    if covariance == "scalar":
        v = jnp.asarray(rng.gamma(2.0))
    elif covariance == "per_leaf":
        v = {k: jnp.asarray(rng.gamma(2.0)) for k in SHAPES}
    else:
        v = {k: jnp.asarray(rng.gamma(2.0, size=s)) for k, s in SHAPES.items()}
    return v, jnp.diag(ravel_pytree(as_diagonal(v))[0])


def as_diagonal(v):
    return {k: (v[k] if isinstance(v, dict) else v) * jnp.ones(s) for k, s in SHAPES.items()}


def vector(t):
    return ravel_pytree(t)[0]


@pytest.mark.parametrize("covariance", ["scalar", "per_leaf", "diagonal"])
def test_both_filters_against_dense_ones(float64, covariance):
    rng = np.random.default_rng(3)
    sigma, dense_sigma = variance(rng, covariance)
    belief = GradientBelief(tree(rng), sigma)
    value = ValueBelief(jnp.asarray(1.0), jnp.asarray(0.2))
    m, P = vector(belief.mean), dense_sigma
    u, s = value
    surprised = 0
    for _ in range(STEPS):
        product, displacement, gradient = tree(rng), tree(rng), tree(rng)
        q, dense_q = variance(rng, covariance)
        sigma, dense_sigma = variance(rng, covariance)
        y, r = jnp.asarray(10 * rng.normal()), jnp.asarray(rng.gamma(2.0))

        change = optax.tree.vdot(belief.mean, displacement)
        change += optax.tree.vdot(displacement, product) / 2
        spread = quadratic_form(belief.variance, displacement)
        spread += quadratic_form(q, displacement) / 4
        expected = dense_value_filter(
            u, s, m, P, vector(displacement), vector(product), dense_q, y, r
        )
        predicted = predict_value(value, change, spread)
        surprised += int((y - predicted.mean) ** 2 > predicted.variance + r)
        value, _ = correct_value(predicted, y, r)
        u, s = expected
        np.testing.assert_allclose(np.array(value), np.array(expected), rtol=1e-11)

        belief, _ = correct_gradient(predict_gradient(belief, product, q), gradient, sigma)
        m, P = dense_gradient_filter(m, P, vector(product), dense_q, vector(gradient), dense_sigma)
        np.testing.assert_allclose(vector(belief.mean), m, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(
            np.diag(vector(as_diagonal(belief.variance))), P, rtol=1e-11, atol=1e-13
        )
    assert 0 < surprised < STEPS  # both branches of the adaptive process noise were taken


def test_variance_falls_as_one_over_t_when_transport_is_exact(float64):
    """On the noisy quadratic Q = 0 and P_t = Σ/(t + 1) exactly."""
    rng = np.random.default_rng(0)
    hessian = jnp.diag(jnp.logspace(-3, 0, 6))
    sigma = jnp.asarray(0.7)
    theta = jnp.asarray(rng.normal(size=6))
    belief = GradientBelief(hessian @ theta, sigma)
    for t in range(1, STEPS):
        displacement = -0.3 * belief.mean
        theta = theta + displacement
        noise = jnp.asarray(rng.normal(size=6)) * jnp.sqrt(sigma)
        predicted = predict_gradient(belief, hessian @ displacement, jnp.asarray(0.0))
        belief, gain = correct_gradient(predicted, hessian @ theta + noise, sigma)
        assert float(belief.variance) == pytest.approx(0.7 / (t + 1), rel=1e-12)
        assert float(gain) == pytest.approx(1 / (t + 1), rel=1e-12)


def test_stated_variance_is_the_error_made(float64):
    """Monte Carlo: over many runs, the squared error of m is P."""
    rng = np.random.default_rng(1)
    runs, sigma = 4000, 0.5
    truth = rng.normal(size=runs)
    belief = GradientBelief(
        jnp.asarray(truth + np.sqrt(sigma) * rng.normal(size=runs)), jnp.asarray(sigma)
    )
    for q in (0.1, 0.4, 0.0, 0.2):
        shift = rng.normal(size=runs)
        observed_shift = shift + np.sqrt(q) * rng.normal(size=runs)
        truth = truth + shift
        gradient = truth + np.sqrt(sigma) * rng.normal(size=runs)
        predicted = predict_gradient(belief, jnp.asarray(observed_shift), jnp.asarray(q))
        belief, _ = correct_gradient(predicted, jnp.asarray(gradient), jnp.asarray(sigma))
    squared = np.square(np.asarray(belief.mean) - truth)
    error = squared.mean() - float(belief.variance)
    assert abs(error) < 4 * squared.std() / np.sqrt(runs)


def test_noise_free_observations_are_taken_as_they_are():
    zero = jnp.zeros(())
    belief = GradientBelief(jnp.array([1.0, 2.0]), zero)
    belief, gain = correct_gradient(
        predict_gradient(belief, jnp.ones(2), zero), jnp.array([5.0, 6.0]), zero
    )
    assert belief.mean.tolist() == [5.0, 6.0]
    assert float(gain) == 1.0
    value, gamma = correct_value(ValueBelief(zero, zero), jnp.array(2.0), zero)
    assert (float(value.mean), float(value.variance), float(gamma)) == (2.0, 0.0, 1.0)


def test_tiny_and_huge_variances_stay_finite_in_float32():
    for scale in (1e-38, 1e-20, 1e20, 1e37):
        v = jnp.asarray(scale, jnp.float32)
        belief, gain = correct_gradient(GradientBelief(jnp.ones(2), v), jnp.zeros(2), v)
        assert np.all(np.isfinite(jax.tree.leaves(belief)[0]))
        assert 0.0 <= float(gain) <= 1.0
