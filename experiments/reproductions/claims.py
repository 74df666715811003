"""What a reproduction returns: a picture, data, tables, and claims that are held to bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..results import bootstrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Verdict(NamedTuple):
    """The number measured, its 95 % interval if it has one, and whether the claim holds."""

    measured: float
    interval: tuple[float, float] | None
    holds: bool


Claims = Mapping[str, Verdict]  # by statement, in words with the bounds that it is held to


@dataclass(frozen=True)
class Reproduction:
    """Outcome of one reproduction.

    Attributes:
      figure: with its title.
      claims: what was checked.
      data: what was computed, arrays and numbers by name.
      tables: numbers that a picture does not show well, by title, made by `table`.
      settings: what the numbers depend on besides the arguments of `run` and the constants of its
        module.
    """

    figure: Figure
    claims: Claims
    data: Mapping[str, Any]
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def check(
    values: Sequence[float] | np.ndarray,
    at_least: float = -math.inf,
    at_most: float = math.inf,
    geometric: bool = False,
) -> Verdict:
    """Hold the mean over the seeds to bounds; a value that is not finite proves nothing.

    Example:
      >>> check([1.0, 2.0], at_most=2).holds
      True
    """
    x = np.asarray(values, float)
    if not np.isfinite(x).all() or (geometric and x.min() <= 0):
        return Verdict(math.nan, None, False)
    mean, low, high = bootstrap(x, geometric)
    return Verdict(mean, (low, high), at_least <= mean <= at_most)


check_ratio = partial(check, geometric=True)


def table(index: str, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A table of named rows as text, with three digits of every number; `index` heads the names."""
    cells = [
        [name, *(x if isinstance(x, str) else f"{x:.3g}" for x in row.values())]
        for name, row in rows.items()
    ]
    return {"header": [index, *next(iter(rows.values()))], "rows": cells}


def over_seeds(values: Any) -> Any:
    """Median, lowest and highest along the first axis of every matrix in nested dicts."""
    if isinstance(values, Mapping):
        return {name: over_seeds(value) for name, value in values.items()}
    x = np.asarray(values)
    if x.ndim < 2:
        return values
    with np.errstate(invalid="ignore"):
        return {"median": np.median(x, 0), "low": np.min(x, 0), "high": np.max(x, 0)}
