"""Four students walk, run, stand and play badminton, with a smart watch on the wrist.

Eighty recordings of ten seconds: acceleration and rate of turning, three coordinates each, ten
times a second. The data set BasicMotions of the UEA archive comes with the Python package aeon, in
text files that are read here: the package itself is not used, nor what it depends on.

A. Bagnall et al., *The UEA Multivariate Time Series Classification Archive, 2018* (2018),
arXiv:1811.00075.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from .packaged import require, unexpected

CHANNELS = 6
ACTIVITIES = ("Badminton", "Running", "Standing", "Walking")
PIECE = 25  # times: two and a half seconds
_RECORDINGS, _TIMES = 40, 100  # in each of the two files
# Its dependencies hold back the versions of numpy and pandas, and the files need none of them.
_INSTALL = "--no-deps "


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
    package = require("aeon", "the data set BasicMotions", _INSTALL)
    folder = Path(package.__path__[0]) / "datasets" / "data" / "BasicMotions"
    train, test = (_read(folder / f"BasicMotions_{part}.ts") for part in ("TRAIN", "TEST"))
    mean, deviation = train.value.mean(axis=(0, 1)), train.value.std(axis=(0, 1))
    learned, judged = (
        part._replace(value=((part.value - mean) / deviation).astype(np.float32))
        for part in (train, test)
    )
    return learned, judged


def _read(file: Path) -> Motions:
    """Recordings in a file whose lines are `channel:…:channel:label`, with commas in a channel."""
    if not file.is_file():
        raise unexpected("aeon", file, "a file of motions", "none", _INSTALL)
    lines = file.read_text(encoding="utf-8").splitlines()
    rows = [line.split(":") for line in lines if line.strip() and line[0] not in "#@"]
    try:
        value = np.array([[channel.split(",") for channel in row[:-1]] for row in rows], float)
        label = np.array([ACTIVITIES.index(row[-1]) for row in rows], np.int32)
    except ValueError as error:
        expected = f"{CHANNELS} channels of {_TIMES} numbers, and an activity"
        raise unexpected("aeon", file, expected, f"others ({error})", _INSTALL) from error
    if value.shape != (_RECORDINGS, CHANNELS, _TIMES) or not np.isfinite(value).all():
        expected = f"{_RECORDINGS} recordings of {CHANNELS} channels and {_TIMES} finite numbers"
        found = f"numbers of shape {value.shape}, {np.isfinite(value).sum()} of them finite"
        raise unexpected("aeon", file, expected, found, _INSTALL)
    pieces = np.arcsinh(value).transpose(0, 2, 1).reshape(-1, PIECE, CHANNELS)
    order = np.random.default_rng(2020).permutation(len(pieces))
    return Motions(pieces[order], np.repeat(label, _TIMES // PIECE)[order])
