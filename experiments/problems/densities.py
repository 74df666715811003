"""Samplers of probability densities in the plane, to learn them: all within about [−4, 4]².

The usual toy densities, at the scale of W. Grathwohl, R. T. Q. Chen, J. Bettencourt, I. Sutskever
and D. Duvenaud, *FFJORD* (2019), arXiv:1810.01367, figure 2. Each is a function of a seed and a
number of points and returns float32 of shape (n, 2).
"""

from collections.abc import Callable

import numpy as np

Sampler = Callable[[int, int], np.ndarray]  # (seed, n) -> points of shape (n, 2)

TRAIN, TEST = 20_000, 2_000

_ARMS = 5
_TURNS = 1.5


def examples(sample: Sampler) -> tuple[np.ndarray, np.ndarray]:
    """Points to learn from, and others to judge by."""
    return sample(0, TRAIN), sample(1, TEST)


def eight_gaussians(seed: int, n: int) -> np.ndarray:
    """Normal distributions of deviation 1/√8 around 8 points on a circle of radius √8.

    Its entropy is 2.82 nats.
    """
    rng = np.random.default_rng(seed)
    angle = rng.integers(0, 8, n) * np.pi / 4
    center = np.sqrt(8) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return _float32(center + rng.standard_normal((n, 2)) / np.sqrt(8))


def pinwheel(seed: int, n: int) -> np.ndarray:
    """Five elongated normal distributions, like blades, that are bent as if by rotation."""
    rng = np.random.default_rng(seed)
    along = 1 + 0.3 * rng.standard_normal(n)
    across = 0.1 * rng.standard_normal(n)
    angle = rng.integers(0, _ARMS, n) * 2 * np.pi / _ARMS + 0.25 * np.exp(along)
    cos, sin = np.cos(angle), np.sin(angle)
    return _float32(2 * np.stack([cos * along - sin * across, sin * along + cos * across], axis=1))


def two_spirals(seed: int, n: int) -> np.ndarray:
    """Two arms of one and a half turns around each other, of equal thickness and mass."""
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * _TURNS * np.sqrt(rng.random(n))
    arm = rng.choice([-1.0, 1.0], n)
    line = arm * angle * np.stack([np.cos(angle), np.sin(angle)]) / 3
    return _float32(line.T + 0.1 * rng.standard_normal((n, 2)))


def checkerboard(seed: int, n: int) -> np.ndarray:
    """Uniform on the 8 black squares of side 2 of a board of 4×4.

    Its entropy is log 32, or 3.47 nats.
    """
    rng = np.random.default_rng(seed)
    column, pair = rng.integers(0, 4, n), rng.integers(0, 2, n)
    corner = np.stack([column, 2 * pair + column % 2], axis=1) - 2
    return _float32(2 * (corner + rng.random((n, 2))))


def _float32(points: np.ndarray) -> np.ndarray:
    return points.astype(np.float32)
