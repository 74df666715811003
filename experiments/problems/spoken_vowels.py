"""Two Japanese vowels spoken by nine men: series of unequal length, from 7 to 29.

Each is one utterance of /ae/, in twelve cepstral coefficients of a linear prediction. The data set
JapaneseVowels of the UCI archive comes with the Python package aeon, in a text file that is read
here: the package itself is not used, nor what it depends on.

M. Kudo, J. Toyama and M. Shimbo, *Multidimensional Curve Classification Using Passing-Through
Regions*, Pattern Recognition Letters 20 (1999).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from .packaged import WITHOUT_DEPENDENCIES, series, unexpected

CHANNELS, SPEAKERS = 12, 9
TRAIN, TEST = 270, 370
LONGEST = 29
_unexpected = partial(unexpected, "aeon", options=WITHOUT_DEPENDENCIES)


class Utterances(NamedTuple):
    """Series of n coefficients each; short ones repeat their last value.

    Attributes:
      value: of mean 0 and deviation 1 over the utterances to learn from, float32,
        shape (utterances, 29, 12).
      length: before the padding, int32, shape (utterances,).
      label: which man speaks, from 0 to 8, int32, likewise.
    """

    value: np.ndarray
    length: np.ndarray
    label: np.ndarray


def japanese_vowels() -> tuple[Utterances, Utterances]:
    """270 utterances to learn from, 30 of each man, and 370 to judge by, both in random order.

    Raises:
      UsageError: if aeon is not installed, or its files are not as expected.
    """
    train, test = _read("TRAIN", TRAIN), _read("TEST", TEST)
    known = np.concatenate([v[:n] for v, n in zip(train.value, train.length, strict=True)])
    mean, deviation = known.mean(axis=0), known.std(axis=0)
    learned, judged = (
        part._replace(value=((part.value - mean) / deviation).astype(np.float32))
        for part in (train, test)
    )
    return learned, judged


def _read(part: str, count: int) -> Utterances:
    """Utterances of a part, in random order."""
    file, rows = series("JapaneseVowels", part, "utterances")
    if len(rows) != count:
        raise _unexpected(file, f"{count} utterances", f"{len(rows)}")
    try:
        spoken = [
            np.array([channel.split(",") for channel in row[:-1]], float).T.reshape(-1, CHANNELS)
            for row in rows
        ]
        label = np.array([row[-1] for row in rows], np.int32) - 1
    except ValueError as error:
        expected = f"{CHANNELS} channels of numbers, and a label"
        raise _unexpected(file, expected, f"others ({error})") from error
    length = np.array([len(one) for one in spoken], np.int32)
    if not (length.min() > 1 and length.max() <= LONGEST and set(label) == set(range(SPEAKERS))):
        expected = f"lengths up to {LONGEST}, of {SPEAKERS} men"
        raise _unexpected(file, expected, "others")
    value = [np.pad(one, ((0, LONGEST - len(one)), (0, 0)), "edge") for one in spoken]
    order = np.random.default_rng(2020).permutation(count)
    return Utterances(np.stack(value)[order], length[order], label[order])
