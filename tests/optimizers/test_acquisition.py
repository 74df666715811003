"""Acquisitions against quadrature with 60 digits, Monte Carlo and finite differences."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from mekax.curvature import LineBelief
from mekax.optimizers import (
    expected_decrease,
    expected_improvement,
    improvement_threshold,
    log_expected_improvement,
    probability_of_improvement,
)
from mekax.optimizers._acquisition import log_probability_of_improvement, resolve_acquisition
from mekax.optimizers._normal import log_improvement

Z = np.concatenate([np.linspace(-30, 30, 41), [-2.000001, -2.0, -1.999999, -1e3, 1e3]])


def line(slope, h=0.0, p=0.0, q=0.0, s=0.0, c=0.0, dtype=jnp.float64):
    """A belief of slope, curvature, their variances, that of the value, and the covariance."""
    return LineBelief(*(jnp.asarray(x, dtype) for x in (0.0, s, slope, p, h, q, c)))


def unit_line(z):
    """A belief of N(−z, 1) about the change at α = 1."""
    return line(-z, p=1.0)


def quadrature(z):
    """log E[max(X, 0)] for X ~ N(z, 1), by adaptive quadrature of the definition."""
    with mpmath.workdps(60):
        z = mpmath.mpf(float(z))
        scale = 1 / (1 + abs(z)) if z < 0 else 1
        edges = [k * scale for k in range(80)]
        return float(mpmath.log(mpmath.quad(lambda x: x * mpmath.npdf(x, z, 1), edges)))


@pytest.mark.parametrize("z", [z for z in Z if abs(z) <= 30])
def test_expected_improvement_against_quadrature_in_the_tails(float64, z):
    value = log_expected_improvement(unit_line(z), jnp.asarray(1.0))
    assert float(value) == pytest.approx(quadrature(z), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("z", [z for z in Z if abs(z) <= 30])
def test_probability_of_improvement_against_the_high_precision_error_function(float64, z):
    with mpmath.workdps(60):
        expected = float(mpmath.log(mpmath.ncdf(float(z))))
    value = log_probability_of_improvement(unit_line(z), jnp.asarray(1.0))
    assert float(value) == pytest.approx(expected, rel=1e-10, abs=1e-15)


@pytest.mark.parametrize("z", Z)
def test_float32_keeps_its_precision(float64, z):
    """Relative error of the logarithm of 1e-6, and of the argument's own rounding."""
    double = float(log_improvement(jnp.asarray(np.float32(z), jnp.float64)))
    single = float(log_improvement(jnp.asarray(z, jnp.float32)))
    assert single == pytest.approx(double, rel=2e-6, abs=2e-6)


@pytest.mark.parametrize(
    "values",
    [
        (-1.0, 2.0, 0.5, 0.3, 0.1, 0.0),
        (-0.2, -1.0, 1.0, 0.0, 0.5, 0.0),
        (0.5, 1.0, 0.1, 2.0, 0.0, -0.4),
        (-3.0, 1.0, 0.01, 0.01, 0.01, 0.009),
    ],
)
@pytest.mark.parametrize("step_size", [0.3, 1.0, 4.0])
def test_values_against_monte_carlo(float64, values, step_size):
    slope, h, p, q, s, c = values
    rng = np.random.default_rng(0)
    n = 400_000
    slope, curvature = rng.multivariate_normal([slope, h], [[p, c], [c, q]], size=n).T
    change = step_size * slope + 0.5 * step_size**2 * curvature
    improvement = np.maximum(-change, 0)
    noisy = change + np.sqrt(2 * s) * rng.normal(size=n)
    alpha = jnp.asarray(step_size)
    for value, sample in (
        (expected_improvement(line(*values), alpha), improvement),
        (probability_of_improvement(line(*values), alpha), noisy < 0),
        (expected_decrease(line(*values), alpha), -change),
    ):
        assert abs(float(value) - sample.mean()) <= 5 * sample.std() / np.sqrt(n) + 1 / n


@pytest.mark.parametrize(
    "acquisition",
    [
        log_expected_improvement,
        expected_improvement,
        log_probability_of_improvement,
        probability_of_improvement,
        expected_decrease,
    ],
)
@pytest.mark.parametrize("slope", [-3.0, 0.1, 5.0])
def test_gradients_against_finite_differences(float64, acquisition, slope):
    belief = line(-slope, 1.5, 0.3, 0.2, 0.1, 0.05)

    def f(alpha):
        return acquisition(belief, alpha)

    for alpha in (0.2, 1.0, 3.0):
        step = 1e-5 * alpha
        difference = (float(f(alpha + step)) - float(f(alpha - step))) / (2 * step)
        gradient = float(jax.grad(f)(jnp.asarray(alpha)))
        assert gradient == pytest.approx(difference, rel=1e-6, abs=1e-9)


EXTREMES = [0.0, 1e-30, 1e-10, 1.0, 1e10, 1e15]


@pytest.mark.parametrize("slope", [0.0, 1e-30, 1.0, 1e15, -1.0])
@pytest.mark.parametrize("curvature", [-1e10, -1.0, 0.0, 1e-30, 1.0, 1e15])
def test_finite_for_every_finite_input_in_float32(slope, curvature):
    p, q, s, alpha = (x.ravel() for x in np.meshgrid(EXTREMES, EXTREMES, EXTREMES, EXTREMES))
    alpha = np.minimum(alpha, 1e8).astype(np.float32)
    slope, curvature = np.broadcast_arrays(-slope, curvature, p)[:2]
    grid = line(slope, curvature, p, q, s, np.zeros_like(p), dtype=jnp.float32)
    # Changes beyond the range of float32 are not finite inputs.
    inside = np.abs(np.asarray(expected_decrease(grid, alpha))) < 1e30
    inside &= np.asarray(grid.change_variance(alpha)) < 1e30
    assert inside.sum() > 300
    for name in ("expected_improvement", "probability_of_improvement", "expected_decrease"):
        assert np.all(np.isfinite(np.asarray(resolve_acquisition(name)(grid, alpha))[inside]))
    value = np.asarray(expected_improvement(grid, alpha))[inside]
    assert np.all(np.isfinite(value))
    assert np.all(value >= 0)
    probability = np.asarray(probability_of_improvement(grid, alpha))[inside]
    assert np.all((probability >= 0) & (probability <= 1))


def test_value_noise_alone_promises_no_improvement():
    quiet, noisy = (line(-1.0, 1.0, 0.1, 0.1, s, dtype=jnp.float32) for s in (0.0, 100.0))
    alpha = jnp.asarray(0.5)
    assert float(expected_improvement(noisy, alpha)) == float(expected_improvement(quiet, alpha))


def test_threshold_solves_its_quadratic(float64):
    a, h, p, q = 1.0, 0.5, 0.04, 0.09
    z = -float(mpmath.mp.sqrt(2) * mpmath.erfinv(1 - 2 * mpmath.mpf("0.8")))
    # (a − αh/2)² = z² (p + α² q/4), smaller root
    A, B, C = h**2 / 4 - z**2 * q / 4, -a * h, a**2 - z**2 * p
    root = (-B - np.sqrt(B**2 - 4 * A * C)) / (2 * A)
    rule = improvement_threshold(0.8)
    inside, outside = rule(line(-a, h, p, q, 9.0), jnp.array([root * 0.9999, root * 1.0001]))
    assert inside > 0 > outside


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0, -1.0])
def test_threshold_refuses_impossible_probabilities(probability):
    with pytest.raises(ValueError, match=r"between 0\.5 and 1"):
        improvement_threshold(probability)


def test_unknown_acquisition_lists_the_names():
    with pytest.raises(ValueError, match="'probability_of_improvement'"):
        resolve_acquisition("expected_improvment")  # pyright: ignore
