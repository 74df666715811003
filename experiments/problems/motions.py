"""Four students walk, run, stand and play badminton, with a smart watch on the wrist.

Eighty recordings of ten seconds: acceleration and rate of turning, three coordinates each, ten
times a second. The data set BasicMotions of the UEA archive comes with the Python package aeon, in
text files that are read here: the package itself is not used, nor what it depends on.

A. Bagnall et al., *The UEA Multivariate Time Series Classification Archive, 2018* (2018),
arXiv:1811.00075.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from .packaged import WITHOUT_DEPENDENCIES, series, unexpected

CHANNELS = 6
ACTIVITIES = ("Badminton", "Running", "Standing", "Walking")
PIECE = 25  # times: two and a half seconds
_RECORDINGS, _TIMES = 40, 100  # in each of the two files
_unexpected = partial(unexpected, "aeon", options=WITHOUT_DEPENDENCIES)


class Motions(NamedTuple):
    """Pieces of recordings.

    Attributes:
      value: arsinh of what was measured, of mean 0 and deviation 1 over the pieces to learn from,
        float32, shape (pieces, 25, 6); impacts are a hundred times what is usual at rest.
      label: place in `ACTIVITIES`, int32, shape (pieces,).
    """

    value: np.ndarray
    label: np.ndarray


def basic_motions() -> tuple[Motions, Motions]:
    """160 pieces to learn from and 160 of other recordings to judge by, both in random order.

    Raises:
      UsageError: if aeon is not installed, or its files are not as expected.
    """
    train, test = map(_read, ("TRAIN", "TEST"))
    mean, deviation = train.value.mean(axis=(0, 1)), train.value.std(axis=(0, 1))
    learned, judged = (
        part._replace(value=((part.value - mean) / deviation).astype(np.float32))
        for part in (train, test)
    )
    return learned, judged


def _read(part: str) -> Motions:
    """Recordings of a part, cut into pieces."""
    file, rows = series("BasicMotions", part, "motions")
    try:
        value = np.array([[channel.split(",") for channel in row[:-1]] for row in rows], float)
        label = np.array([ACTIVITIES.index(row[-1]) for row in rows], np.int32)
    except ValueError as error:
        expected = f"{CHANNELS} channels of {_TIMES} numbers, and an activity"
        raise _unexpected(file, expected, f"others ({error})") from error
    if value.shape != (_RECORDINGS, CHANNELS, _TIMES) or not np.isfinite(value).all():
        expected = f"{_RECORDINGS} recordings of {CHANNELS} channels and {_TIMES} finite numbers"
        found = f"numbers of shape {value.shape}, {np.isfinite(value).sum()} of them finite"
        raise _unexpected(file, expected, found)
    pieces = np.arcsinh(value).transpose(0, 2, 1).reshape(-1, PIECE, CHANNELS)
    order = np.random.default_rng(2020).permutation(len(pieces))
    return Motions(pieces[order], np.repeat(label, _TIMES // PIECE)[order])
