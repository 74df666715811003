"""Units of work in a folder that several processes share; needs no jax.

Each unit, one method on one cell, is one file. A unit is claimed by locking a file of its own;
the system frees the lock when its process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .. import files, resuming
from ..errors import UsageError
from . import methods
from .suite import Cell

SCHEMA = 1
RECORD = "benchmark.json"


@dataclass(frozen=True)
class Unit:
    """One method on one cell, with all its settings and seeds."""

    cell: Cell
    method: str

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.cell.problem} · batch {self.cell.batch_size} · {self.method}"

    @property
    def inputs(self) -> dict[str, Any]:
        """What its content depends on, besides the record of the folder."""
        code = our_code() if methods.is_ours(self.method) else None
        return {
            "schema": SCHEMA,
            "steps": self.cell.steps,
            "examples": self.cell.examples,
            "code": code,
        }


class Store:
    """The folder of a benchmark."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._known: set[Unit] = set()

    def begin(self, record: dict[str, Any]) -> None:
        """Write the record, or make sure that the folder's is the same.

        Raises:
          UsageError: if the folder holds a benchmark of another kind, or an unreadable record.
        """
        path = self.folder / RECORD
        with self._lock("begin", wait=True):
            if not path.exists():
                files.write_json(path, record)
        self.expect(record)

    def expect(self, record: dict[str, Any]) -> None:
        """Make sure that the folder's record, if it has one, agrees with these parts of one.

        Raises:
          UsageError: if the folder holds a benchmark of another kind, or an unreadable record.
        """
        path = self.folder / RECORD
        if not path.exists():
            return
        try:
            recorded = json.loads(path.read_text(encoding="utf-8"))
            parts = {what: dict(recorded[what]) for what in record}
        except (OSError, ValueError, TypeError, KeyError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UsageError(
                f"expected {path} to be the record of a benchmark, but it cannot be understood "
                f"({reason}). Choose another folder."
            ) from error
        advice = "Repeat what began it, or choose another --out."
        for what, content in record.items():
            resuming.expect_same(path, what, parts[what], content, advice)

    def read(self, unit: Unit) -> dict[str, Any] | None:
        """The finished unit; None if there is none, or its inputs have changed since."""
        try:
            content = json.loads(self._path(unit).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        mine = isinstance(content, dict) and content.get("inputs") == unit.inputs
        return content if mine else None

    def has(self, unit: Unit) -> bool:
        """Whether the unit is finished; quick to ask again."""
        if unit not in self._known and self.read(unit) is not None:
            self._known.add(unit)
        return unit in self._known

    def write(self, unit: Unit, content: dict[str, Any]) -> None:
        """Keep a finished unit."""
        self._path(unit).parent.mkdir(parents=True, exist_ok=True)
        files.write_json(self._path(unit), {"inputs": unit.inputs, **content})

    @contextmanager
    def claim(self, unit: Unit) -> Iterator[bool]:
        """Whether the unit is this process's to do: unfinished, and claimed by no other."""
        with self._lock(f"{unit.cell.name}-{unit.method}") as mine:
            # Another process may have finished it between a look and the claim.
            yield mine and self.read(unit) is None

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """One process at a time writes the report."""
        with self._lock("report", wait=True):
            yield

    @contextmanager
    def _lock(self, name: str, wait: bool = False) -> Iterator[bool]:
        path = self.folder / "locks" / name
        path.parent.mkdir(exist_ok=True)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True

    def _path(self, unit: Unit) -> Path:
        return self.folder / "units" / unit.cell.name / f"{unit.method}.json"


@cache
def our_code() -> str:
    """Fingerprint of the optimizers, so that no results of other code are taken for theirs."""
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for package in ("optimizers", "curvature"):
        for path in sorted((root / package).glob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
