"""Noisy observations of random processes in continuous time."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_FINE = 40  # steps of the simulation from one observation to the next


class Process(NamedTuple):
    """A stochastic differential equation, and how it is observed.

    Attributes:
      drift: of states (count, size).
      diffusion: deviation for unit time.
      start: deviation of the first state, which has mean 0.
      size: of a state.
      gap: from one observation to the next.
      noise: deviation of an observation from the truth.
    """

    drift: Callable[[np.ndarray], np.ndarray]
    diffusion: float
    start: float
    size: int
    gap: float
    noise: float


def _double_well(x: np.ndarray) -> np.ndarray:
    return 2 * (x - x**3)


def _lorenz(state: np.ndarray) -> np.ndarray:
    # In units in which every coordinate is about 1, as is usual for learning.
    x, y, z = (_LORENZ_SCALE * state + _LORENZ_CENTER).T
    slope = np.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], axis=1)
    return slope / _LORENZ_SCALE


_LORENZ_SCALE = np.array([8.0, 9.0, 8.5])
_LORENZ_CENTER = np.array([0.0, 0.0, 23.5])

DOUBLE_WELL = Process(_double_well, diffusion=0.7, start=1.0, size=1, gap=0.25, noise=0.1)
LORENZ = Process(_lorenz, diffusion=0.15, start=1.0, size=3, gap=0.025, noise=0.01)


def observe(process: Process, seed: int, count: int, times: int) -> np.ndarray:
    """Independent series of so many observations, the first at time 0.

    Returns:
      float32 of shape (count, times, size).
    """
    rng = np.random.default_rng(seed)
    state = process.start * rng.standard_normal((count, process.size))
    dt, states = process.gap / _FINE, [state]
    while len(states) < times:
        for _ in range(_FINE):
            noise = process.diffusion * np.sqrt(dt) * rng.standard_normal(state.shape)
            state = state + process.drift(state) * dt + noise
        states.append(state)
    truth = np.stack(states, axis=1)
    return (truth + process.noise * rng.standard_normal(truth.shape)).astype(np.float32)
