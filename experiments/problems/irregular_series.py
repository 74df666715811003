"""Short time series at irregular times, of which many values are missing."""

from typing import NamedTuple

import numpy as np

END = 5.0  # of a series, which starts at 0
SEEN_UNTIL = 2.5  # what comes later is to be extrapolated
NOISE = 0.1  # deviation of an observation from the truth
CHANNELS = 3
_MISSING = 0.5  # probability that a value is
_MIXING = np.array([[1.0, 0.0], [0.0, 1.0], [0.7, -0.7]])


class Series(NamedTuple):
    """Series of n times of 3 channels each; short ones repeat their last time.

    Attributes:
      time: float32, shape (series, n), rising.
      value: float32, shape (series, n, 3).
      observed: whether a value is given to learn from, bool, shape (series, n, 3).
      hidden: whether a value is withheld to judge by; padding is neither, bool, shaped likewise.
    """

    time: np.ndarray
    value: np.ndarray
    observed: np.ndarray
    hidden: np.ndarray


def damped_oscillations(seed: int, count: int, *, longest: int = 24) -> Series:
    """Draw damped oscillations of random amplitude, phase, frequency and damping.

        s(t) = a exp(−γ t) (cos(ω t + φ), sin(ω t + φ)),    value = M s(t) + noise

    Between two thirds of `longest` and all of it are times, uniform from 0 to 5.
    """
    rng = np.random.default_rng(seed)
    there = np.arange(longest) < rng.integers(2 * longest // 3, longest + 1, (count, 1))
    time = np.sort(np.where(there, rng.uniform(0, END, (count, longest)), -1.0))[:, ::-1]
    time = np.sort(np.where(time < 0, time[:, :1], time))  # the last time, repeated
    amplitude, phase, frequency, damping = (
        rng.uniform(low, high, (count, 1))
        for low, high in ((0.8, 1.6), (0, 2 * np.pi), (1.8, 2.6), (0.05, 0.25))
    )
    size, angle = amplitude * np.exp(-damping * time), frequency * time + phase
    state = size[..., None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    value = state @ _MIXING.T + NOISE * rng.standard_normal((count, longest, CHANNELS))
    observed = there[..., None] & (rng.random(value.shape) > _MISSING)
    return Series(
        time.astype(np.float32), value.astype(np.float32), observed, there[..., None] & ~observed
    )
