"""What a reproduction returns, how it is written and how its verdicts are shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich import table as rich_table
from rich.console import Console
from rich.markup import escape

from .. import files
from ..intervals import bootstrap_mean
from .folder import SCHEMA

_DIGITS = 4  # significant digits of the data that are kept: enough to draw from


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

    @property
    def verdict(self) -> str:
        """In words."""
        return "holds" if self.holds else "does not hold"

    @property
    def ends(self) -> str:
        """The interval as text."""
        return "–" if self.interval is None else "[{:.3g}, {:.3g}]".format(*self.interval)


@dataclass(frozen=True)
class Table:
    """Numbers as text, for readers.

    Attributes:
      title: what it shows.
      header: of the columns.
      rows: as many texts as there are columns, each.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Reproduction:
    """Outcome of one reproduction.

    Attributes:
      settings: everything that the numbers depend on.
      data: what was computed, arrays and numbers by name.
      claims: what was checked.
      tables: numbers that a picture does not show well.
    """

    settings: dict[str, Any]
    data: dict[str, Any]
    claims: Sequence[Claim] = field(default_factory=tuple)
    tables: Sequence[Table] = field(default_factory=tuple)


def check(
    statement: str,
    values: Sequence[float] | np.ndarray,
    at_least: float = -math.inf,
    at_most: float = math.inf,
    ratio: bool = False,
) -> Claim:
    """Hold the mean over the seeds to bounds.

    Args:
      statement: in words, with the bounds.
      values: one per seed.
      at_least: lower bound of the mean.
      at_most: upper bound of the mean.
      ratio: whether to take the geometric mean; the values are positive.

    Returns:
      The claim. It does not hold where a value is not finite: such a run proves nothing.
    """
    x = np.asarray(values, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        x = np.log(x) if ratio else x
    if not np.isfinite(x).all():
        return Claim(statement, math.nan, None, False)
    found = [float(v) for v in bootstrap_mean(x.tolist())]
    mean, low, high = (math.exp(v) for v in found) if ratio else found
    return Claim(statement, mean, (low, high), at_least <= mean <= at_most)


def short(values: Any) -> Any:
    """The same arrays with 4 significant digits, which keeps files small."""
    if isinstance(values, Mapping):
        return {name: short(value) for name, value in values.items()}
    x = np.asarray(values)
    if x.dtype.kind != "f":
        return x
    rounded = [float(f"{v:.{_DIGITS}g}") for v in x.ravel()]
    return np.array(rounded).reshape(x.shape)


def over_seeds(values: np.ndarray) -> dict[str, np.ndarray]:
    """Median, lowest and highest along the first axis: what the pictures show."""
    with np.errstate(invalid="ignore"):
        return short(
            {"median": np.median(values, 0), "low": np.min(values, 0), "high": np.max(values, 0)}
        )


def write(
    name: str,
    reproduction: Reproduction,
    out: Path,
    command: Sequence[str] = (),
    asked: Mapping[str, Any] | None = None,
) -> Path:
    """Write `NAME.json` into the folder: settings, data, claims and versions."""
    path = out / f"{name}.json"
    content = {
        "schema": SCHEMA,
        "reproduction": name,
        "asked": dict(asked or {}),
        "command": list(command),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": files.versions(),
        "device": files.device(),
        "settings": reproduction.settings,
        "claims": [asdict(claim) for claim in reproduction.claims],
        "tables": [asdict(table) for table in reproduction.tables],
        "data": reproduction.data,
    }
    files.write_json(path, content)
    return path


def read(content: Mapping[str, Any]) -> tuple[list[Claim], list[Table]]:
    """Claims and tables of a file that was written earlier."""
    found = [
        Claim(
            c["statement"],
            math.nan if c["measured"] is None else c["measured"],
            None if c["interval"] is None else tuple(c["interval"]),
            c["holds"],
        )
        for c in content["claims"]
    ]
    return found, [Table(**table) for table in content["tables"]]


def show(name: str, claims: Sequence[Claim], tables: Sequence[Table], console: Console) -> None:
    """Print the tables and the verdicts."""
    for table in tables:
        printed = rich_table.Table(title=table.title, title_justify="left")
        for place, heading in enumerate(table.header):
            printed.add_column(heading, justify="right" if place else "left")
        for row in table.rows:
            printed.add_row(*map(escape, row))
        console.print(printed)
    verdicts = rich_table.Table(title=name, title_justify="left")
    verdicts.add_column("claim")
    verdicts.add_column("measured", justify="right")
    verdicts.add_column("95 % interval", justify="right")
    verdicts.add_column("verdict")
    for claim in claims:
        verdicts.add_row(
            escape(claim.statement),
            f"{claim.measured:.4g}",
            escape(claim.ends),
            claim.verdict,
            style=None if claim.holds else "red",
        )
    console.print(verdicts)
