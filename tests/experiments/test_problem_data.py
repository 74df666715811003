"""What the problems of flows and of series draw to learn from."""

import numpy as np
import pytest
from mekax.experiments import data
from mekax.experiments.problems import densities
from mekax.experiments.problems.irregular_series import END, damped_oscillations
from mekax.experiments.problems.stochastic_series import DOUBLE_WELL, LORENZ, observe


@pytest.mark.parametrize("name", ["eight_gaussians", "pinwheel", "two_spirals", "checkerboard"])
def test_points_in_the_plane(name):
    sample = getattr(densities, name)
    points = sample(1, 20_000)
    assert points.shape == (20_000, 2)
    assert points.dtype == np.float32
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=0.1)
    assert np.all((points.std(axis=0) > 1) & (points.std(axis=0) < 2.5))
    assert np.mean(np.abs(points) < 4.01) > 0.99
    np.testing.assert_array_equal(points, sample(1, 20_000))
    assert not np.array_equal(points, sample(2, 20_000))


def test_entropy_of_eight_gaussians():
    points = densities.eight_gaussians(0, 50_000).astype(np.float64)
    angle = np.arange(8) * np.pi / 4
    center = np.sqrt(8) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    square = np.sum((points[:, None] - center) ** 2, axis=-1)
    density = np.mean(np.exp(-4 * square) * 4 / np.pi, axis=1)
    assert -np.mean(np.log(density)) == pytest.approx(2.82, abs=0.02)


def test_checkerboard_is_uniform_on_black_squares():
    points = densities.checkerboard(0, 16_000)
    square = np.floor(points / 2).astype(int) + 2
    board = np.zeros((4, 4), int)
    np.add.at(board, tuple(square.T), 1)
    black = (np.arange(4)[:, None] + np.arange(4)) % 2 == 0
    assert np.all(board[~black] == 0)
    np.testing.assert_allclose(board[black], 2_000, rtol=0.1)


def test_one_spiral_is_the_other_turned():
    points = densities.two_spirals(0, 4_000)
    radius = np.hypot(*points.T)
    angle = np.mod(np.arctan2(points[:, 1], points[:, 0]) - 3 * radius, np.pi)
    turned = np.minimum(angle, np.pi - angle)  # from the nearer arm
    assert np.mean(turned[radius > 1.5] < 0.5) > 0.8
    assert np.mean(points[:, 0] > 0) == pytest.approx(0.5, abs=0.03)


def test_double_well_has_two_wells():
    values = observe(DOUBLE_WELL, 0, 2_000, 21)
    assert values.shape == (2_000, 21, 1)
    assert values.dtype == np.float32
    late = values[:, -1, 0]
    assert np.mean(np.abs(late) < 0.3) < np.mean(np.abs(late - 1) < 0.3) / 1.5
    assert np.mean(late > 0) == pytest.approx(0.5, abs=0.05)
    # The density is known: exp(−2 U / g²) with U = x⁴/2 − x², widened by the noise.
    x = np.linspace(-3, 3, 2_001)
    density = np.exp(-2 * (x**4 / 2 - x**2) / DOUBLE_WELL.diffusion**2)
    square = np.sum(x**2 * density) / np.sum(density) + DOUBLE_WELL.noise**2
    assert np.mean(late**2) == pytest.approx(square, rel=0.05)


def test_lorenz_attractor_has_the_size_of_its_units():
    values = observe(LORENZ, 0, 50, 120)[:, 60:]
    assert np.all(np.abs(values.mean(axis=(0, 1))) < 0.35)
    assert np.all((values.std(axis=(0, 1)) > 0.7) & (values.std(axis=(0, 1)) < 1.3))
    np.testing.assert_array_equal(values, observe(LORENZ, 0, 50, 120)[:, 60:])


def test_series_are_irregular():
    series = damped_oscillations(0, 400)
    assert np.all(np.diff(series.time) >= 0)
    assert np.all((series.time > 0) & (series.time < END))
    there = series.observed | series.hidden
    assert not np.any(series.observed & series.hidden)
    assert np.all(there == there[..., :1])
    length = there[..., 0].sum(axis=1)
    assert length.min() == 16
    assert length.max() == 24
    assert series.observed.sum() / there.sum() == pytest.approx(0.5, abs=0.02)
    padding = np.repeat(series.time[:, -1:], 24, axis=1)[~there[..., 0]]
    np.testing.assert_array_equal(series.time[~there[..., 0]], padding)
    assert series.value.std() == pytest.approx(0.65, abs=0.1)


def test_measurements_are_white_and_apart():
    train, test = data.cells()
    assert (train.shape, test.shape) == ((456, 10), (113, 10))
    np.testing.assert_allclose(np.cov(train.T), np.eye(10), atol=1e-4)
    known = {row.tobytes() for row in train}
    assert sum(row.tobytes() in known for row in test) == 0
