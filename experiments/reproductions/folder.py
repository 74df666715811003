"""What a folder of results already holds, so that an interrupted command goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UsageError

SCHEMA = 2


def finished(name: str, out: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """The content of `NAME.json`, which is written last of all; None if there is no such file.

    Raises:
      UsageError: if it answers another question, or cannot be understood.
    """
    path = out / f"{name}.json"
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        schema, before = content["schema"], content["asked"]
        if schema != SCHEMA:
            raise ValueError(f"schema {schema}, expected {SCHEMA}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"expected {path} to be a result of this version, but it cannot be understood "
            f"({type(error).__name__}: {error}). Choose another --out, or move that file away."
        ) from error
    if before != dict(asked):
        differences = ", ".join(
            f"{key} was {before.get(key)}, is now {value}"
            for key, value in asked.items()
            if before.get(key) != value
        )
        raise UsageError(
            f"expected --out to be a folder without earlier results of other settings, but in "
            f"{path} {differences}. Choose another folder, or move that file away."
        )
    return content
