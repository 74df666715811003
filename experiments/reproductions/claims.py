"""What a reproduction returns: a picture, data, tables, and claims that are held to bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..results import bootstrap

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Claim:
    """A statement and what was measured of it.

    Attributes:
      statement: in words, with the bound that it is held to.
      measured: the number.
      interval: its 95 % interval, or None for a number without one.
      holds: whether the statement is true of what was measured.
    """

    statement: str
    measured: float
    interval: tuple[float, float] | None
    holds: bool


@dataclass(frozen=True)
class Reproduction:
    """Outcome of one reproduction.

    Attributes:
      figure: with its title.
      claims: what was checked.
      data: what was computed, arrays and numbers by name.
      tables: numbers that a picture does not show well, by title; the index names the rows.
      settings: what the numbers depend on besides the arguments of `run` and the constants of its
        module.
    """

    figure: Figure
    claims: Sequence[Claim]
    data: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def check(
    statement: str,
    values: Sequence[float] | np.ndarray,
    at_least: float = -math.inf,
    at_most: float = math.inf,
    geometric: bool = False,
) -> Claim:
    """Hold the mean over the seeds to bounds.

    Args:
      statement: in words, with the bounds.
      values: one per seed.
      at_least: lower bound of the mean.
      at_most: upper bound of the mean.
      geometric: whether to take the geometric mean, of positive numbers.

    Returns:
      The claim. It does not hold where a value is not finite: such a run proves nothing.

    Example:
      >>> check("at most 2", [1.0, 2.0], at_most=2).holds
      True
    """
    x = np.asarray(values, float)
    if not np.isfinite(x).all() or (geometric and x.min() <= 0):
        return Claim(statement, math.nan, None, False)
    mean, low, high = bootstrap(x, geometric)
    return Claim(statement, mean, (low, high), at_least <= mean <= at_most)


check_ratio = partial(check, geometric=True)


def over_seeds(values: Any) -> Any:
    """Median, lowest and highest along the first axis of every matrix in nested dicts."""
    if isinstance(values, Mapping):
        return {name: over_seeds(value) for name, value in values.items()}
    x = np.asarray(values)
    if x.ndim < 2:
        return values
    with np.errstate(invalid="ignore"):
        return {"median": np.median(x, 0), "low": np.min(x, 0), "high": np.max(x, 0)}
