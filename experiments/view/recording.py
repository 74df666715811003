"""The format of a recording: JSON lines that only grow.

The first line says what the file is; each further line is one record, an object of the step and
scalars by name. Numbers are strict JSON; what is not finite is one of three words.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

HEADER = '{"mekax": "recording", "version": 1}'


def encode(step: int, scalars: Mapping[str, float]) -> bytes:
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
    return float(f"{value:.9g}") if math.isfinite(value) else json.dumps(value)


def decode(line: bytes) -> tuple[int, dict[str, float]]:
    """Step and scalars of one line.

    Raises:
      ValueError: if the line is anything else than a record.

    Example:
      >>> decode(b'{"step": 3, "loss": "Infinity", "gain": 0.5}')
      (3, {'loss': inf, 'gain': 0.5})
    """
    try:
        content = json.loads(line)
        step = content.pop("step")
        scalars = {name: float(value) for name, value in content.items()}
    except (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError("not an object of a step and numbers") from error
    if type(step) is not int or not 0 <= step < 2**63:
        raise ValueError(f"step is {step!r}, not a whole number of at least 0")
    return step, scalars
