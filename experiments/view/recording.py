"""The format of a recording, and reading it: JSON lines that only grow.

The first line says what the file is; each further line is one record, an object of the step and
scalars by name. Numbers are strict JSON; what is not finite is one of three words.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import UsageError

HEADER = '{"mekax": "recording", "version": 1}'
_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_NAMED = 5  # damaged lines whose numbers are given


class Series(NamedTuple):
    """One quantity: the steps at which it was recorded, increasing, and its values.

    Attributes:
      steps: int64, shape (n,).
      values: float64, shape (n,), as recorded, finite or not.
    """

    steps: np.ndarray
    values: np.ndarray


class Recording(NamedTuple):
    """What a training recorded.

    Attributes:
      name: of the run.
      series: quantities by name.
      group: what the runs that it compares with share, such as the problem; may be empty.
      family: what runs share that differ by the seed alone, such as the optimizer; or empty.
      note: what is to be known about it, sentences; or empty.
    """

    name: str
    series: dict[str, Series]
    group: str = ""
    family: str = ""
    note: str = ""


def encode(step: int, scalars: dict[str, float]) -> bytes:
    r"""One record as a line; floats keep 9 digits, which give back every float32 exactly.

    Example:
      >>> encode(3, {"loss": math.inf, "gain": 0.5})
      b'{"step": 3, "loss": "Infinity", "gain": 0.5}\n'
    """
    content = {"step": step, **{name: _plain(value) for name, value in scalars.items()}}
    return json.dumps(content, allow_nan=False).encode() + b"\n"


def _plain(value: float) -> float | str:
    if isinstance(value, int):
        return value
    if math.isfinite(value):
        return float(f"{value:.9g}")
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def decode(line: bytes) -> tuple[int, dict[str, float]]:
    """Step and scalars of one line.

    Raises:
      ValueError: if the line is anything else than a record.

    Example:
      >>> decode(b'{"step": 3, "loss": "Infinity", "gain": 0.5}')
      (3, {'loss': inf, 'gain': 0.5})
    """
    try:
        content = json.loads(line, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError("not an object")
    step = content.pop("step", None)
    if type(step) is not int or not 0 <= step < 2**63:
        raise ValueError(f"step is {step!r}, not a whole number of at least 0")
    return step, {name: _value(name, value) for name, value in content.items()}


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is no JSON")


def _value(name: str, value: Any) -> float:
    if type(value) is float or (type(value) is int and abs(value) < 2**63):
        return float(value)
    if isinstance(value, str) and value in _WORDS:
        return _WORDS[value]
    raise ValueError(f"{name!r} is {value!r}, not a number")


def read(path: Path) -> Recording:
    """Read a recording, also one that is being written or whose writer was killed.

    A last line that was cut off and lines that are damaged are left out, and noted. A record
    replaces all before it of later steps: a training that continues from a checkpoint repeats
    steps. Of records of the same step, the last value of a name counts.

    Args:
      path: of the file.

    Returns:
      The recording, named by the file.

    Raises:
      UsageError: if the file cannot be read or is no recording; it is left as it is.
    """
    advice = "Name a file that a Recorder wrote, or a folder that mekax compare wrote."
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"expected a recording, but {path} cannot be read ({error.strerror or error}). {advice}"
        ) from error
    first, *lines = content.split(b"\n")
    if first != HEADER.encode():
        raise UsageError(
            f"expected {path} to be a recording, but it does not begin with {HEADER}. {advice}"
        )
    cut_off = bool(lines and lines.pop())
    found: dict[str, dict[int, float]] = {}
    last = 0
    damaged: list[int] = []
    for number, line in enumerate(lines, start=2):
        try:
            step, scalars = decode(line)
        except ValueError:
            damaged.append(number)
            continue
        if step < last:
            found = {name: {s: v[s] for s in v if s < step} for name, v in found.items()}
        last = step
        for name, value in scalars.items():
            found.setdefault(name, {})[step] = value
    if damaged[-1:] == [len(lines) + 1]:  # what a crash may leave at the end, with a line's end
        cut_off = bool(lines[damaged.pop() - 2])
    series = {
        name: Series(np.array([*values], np.int64), np.array([*values.values()], np.float64))
        for name, values in found.items()
        if values
    }
    notes = [_left_out(damaged)] if damaged else []
    notes += ["The last line was cut off and is left out."] if cut_off else []
    return Recording(path.stem, series, note=" ".join(notes))


def _left_out(lines: list[int]) -> str:
    """Say which lines are damaged.

    Example:
      >>> _left_out([3])
      'Line 3 is damaged and left out.'
    """
    if len(lines) == 1:
        return f"Line {lines[0]} is damaged and left out."
    named = ", ".join(map(str, lines[:_NAMED])) + (", …" if len(lines) > _NAMED else "")
    return f"{len(lines)} lines are damaged and left out ({named})."
