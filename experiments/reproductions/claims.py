"""What a reproduction returns, how it is written and how its verdicts are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .. import files

SCHEMA = 1


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
      settings: everything that the numbers depend on.
      data: what was computed, arrays and numbers by name.
      claims: what was checked.
    """

    settings: dict[str, Any]
    data: dict[str, Any]
    claims: Sequence[Claim] = field(default_factory=tuple)

    @property
    def holds(self) -> bool:
        """Whether every claim holds."""
        return all(claim.holds for claim in self.claims)


def write(name: str, reproduction: Reproduction, out: Path, command: Sequence[str] = ()) -> Path:
    """Write `NAME.json` into the folder: settings, data, claims and versions."""
    path = out / f"{name}.json"
    content = {
        "schema": SCHEMA,
        "reproduction": name,
        "command": list(command),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": files.versions(),
        "device": files.device(),
        "settings": reproduction.settings,
        "claims": [asdict(claim) for claim in reproduction.claims],
        "data": reproduction.data,
    }
    files.write_json(path, content)
    return path


def show(name: str, reproduction: Reproduction, console: Console) -> None:
    """Print the verdicts."""
    table = Table(title=name, title_justify="left")
    table.add_column("claim")
    table.add_column("measured", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("verdict")
    for claim in reproduction.claims:
        ends = claim.interval
        table.add_row(
            claim.statement,
            f"{claim.measured:.4g}",
            "–" if ends is None else f"[{ends[0]:.4g}, {ends[1]:.4g}]",
            "holds" if claim.holds else "does not hold",
            style=None if claim.holds else "red",
        )
    console.print(table)
