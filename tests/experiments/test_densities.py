import numpy as np
import pytest
from mekax.experiments import densities


@pytest.mark.parametrize("sample", densities.DENSITIES.values(), ids=list(densities.DENSITIES))
def test_samples(sample):
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
