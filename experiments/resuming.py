"""What an interrupted comparison left: its record, read and checked before anything heavy."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import files
from .errors import UsageError
from .runs import Run
from .settings import RESULTS, Settings

SCHEMA = 1  # of the file of results
# What reading and taking apart a damaged file can raise.
_UNREADABLE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError),
    *(OverflowError, RecursionError),
)
_PLACES = ("out", "data_dir")  # say where things are, not what is computed


@dataclass(frozen=True)
class Earlier:
    """A comparison to continue.

    Attributes:
      path: the file it was read from.
      report: content of the file.
      runs: those that had ended by themselves.
    """

    path: Path
    report: dict[str, Any]
    runs: tuple[Run, ...]


def read(settings: Settings) -> Earlier | None:
    """The comparison in the output folder, or None if there is none.

    Raises:
      UsageError: if its file cannot be read, or it was made with other settings or versions.
    """
    path = settings.out / RESULTS
    if not path.exists():
        return None
    earlier = _load(path)
    command = shlex.join(["mekax", *map(str, earlier.report["command"][1:])])
    expect_same(
        path,
        "settings",
        {name: v for name, v in earlier.report["settings"].items() if name not in _PLACES},
        {name: v for name, v in settings.as_dict().items() if name not in _PLACES},
        f"Repeat the command that began it with --resume added ({command}), or choose another "
        f"folder.",
    )
    expect_same(
        path,
        "versions",
        earlier.report["versions"],
        files.versions(),
        "Install the recorded ones, or compare anew in another folder.",
    )
    return earlier


def expect_same(
    path: Path, what: str, recorded: Mapping[str, Any], now: Mapping[str, Any], advice: str
) -> None:
    """Make sure that what counts is as it was.

    Raises:
      UsageError: naming everything that differs.
    """
    recorded, now = files.plain(recorded), files.plain(now)
    differing = [
        f"{name} was {_words(recorded.get(name))}, is now {_words(now.get(name))}"
        for name in dict.fromkeys((*recorded, *now))
        if recorded.get(name) != now.get(name)
    ]
    if differing:
        raise UsageError(
            f"expected the {what} recorded in {path} to continue with, got others: "
            f"{'; '.join(differing)}. {advice}"
        )


def _load(path: Path) -> Earlier:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if report["schema"] != SCHEMA:
            raise ValueError(f"schema {report['schema']!r} instead of {SCHEMA}")
        for name in ("settings", "versions", "device", "problems"):
            if not isinstance(report[name], dict):
                raise TypeError(f"{name} is not an object")
        if not isinstance(report["command"], list):
            raise TypeError("command is not a list")
        runs = tuple(run for run in map(Run.from_dict, report["runs"]) if run.ended)
    except _UNREADABLE as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UsageError(
            f"expected {path} to be the record of a comparison, but it cannot be understood "
            f"({reason}). It has been left as it is: put a whole copy in its place, or compare "
            f"anew in another folder."
        ) from error
    return Earlier(path, report, runs)


def _words(value: Any) -> str:
    if value is None:
        return "not given"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
