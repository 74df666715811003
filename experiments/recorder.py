from __future__ import annotations

import operator
import os
import weakref
from collections import deque
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from .record_file import RecordFile
from .recording import encode

_PENDING = 32  # records that may wait for the device; then it is waited for


class _Record(NamedTuple):
    """A record whose numbers may still be computed."""

    step: int
    on_host: dict[str, float]
    on_device: dict[str, jax.Array]  # by dtype, the scalars of that dtype
    names: dict[str, list[str]]  # of these scalars, by dtype


class Recorder:
    """Record scalars of a training, from any loop, to a file that `mekax view` shows.

    The file grows by one line of JSON a record and is never rewritten, so that a crash costs the
    newest records at most. Opened again, it is continued: a torn last line is cut off, and the
    records of a training that went back to a checkpoint replace those of the steps it repeats.

    `write` does not wait for the device. One small program copies the scalars together, so that
    the state may be donated to the next step, and their transfer starts; they are written once
    they have arrived, by a later call or by `close`. Only when 32 records are outstanding is the
    oldest waited for.

    Args:
      path: of the file, such as `run.jsonl`; `mekax view` names the run by it.

    Raises:
      IsADirectoryError, BlockingIOError, OSError: if the path is a folder, in use by another
        Recorder, or cannot be written to.
      ValueError: if the file is something else than a recording; it is left as it is.

    Example:
      >>> import jax.numpy as jnp, pathlib, tempfile
      >>> from mekax.experiments import Recorder
      >>> from mekax.optimizers import meka, metrics
      >>> params, value_fn = jnp.array([2.0]), lambda w: jnp.sum(w**2)
      >>> tx = meka()
      >>> _, state = tx.update(2 * params, tx.init(params), params, value_fn=value_fn)
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "run.jsonl"
      >>> with Recorder(path) as recorder:
      ...     recorder.write(1, metrics(state), loss=value_fn(params))
      >>> path.read_text().splitlines()[1]
      '{"step": 1, ... "loss": 4.0, ...}'
    """

    def __init__(self, path: str | os.PathLike[str]):
        self._file = RecordFile(Path(path).expanduser())
        self._pending: deque[_Record] = deque()
        self._last = 0
        # Runs also where a program ends without closing.
        self._finish = weakref.finalize(self, _finish, self._file, self._pending)

    def write(self, step: int, scalars: Mapping[str, Any] | None = None, /, **extra: Any) -> None:
        """Record scalars at a step.

        Args:
          step: number of the step, at least 0 and not below that of the call before.
          scalars: by name: numbers, NumPy scalars or JAX arrays of shape (), real; finite or not.
          **extra: more of them.

        Raises:
          TypeError: if something is not a real scalar, or is traced by `jax.jit`.
          ValueError: if steps go back, the recorder is closed, or a name occurs twice.
        """
        self._check_open()
        number = self._step(step)
        found = _merge(scalars or {}, extra)
        for name, value in found.items():
            _check_scalar(name, value)
        device = {name: value for name, value in found.items() if isinstance(value, jax.Array)}
        host = {name: _number(value) for name, value in found.items() if name not in device}
        together = _together(device) if device else {}
        for array in together.values():
            array.copy_to_host_async()
        self._last = number
        self._pending.append(_Record(number, host, together, _names_by_dtype(device)))
        _drain(self._file, self._pending, wait_above=_PENDING)

    def extend(self, steps: Any, columns: Mapping[str, Any]) -> None:
        """Record many steps at once, such as `jax.lax.scan` returns them; waits for the device.

        Args:
          steps: whole numbers, shape (n,), increasing, not below the step of the call before.
          columns: by name, an array of shape (n,) each.

        Raises:
          TypeError, ValueError: as `write`; or if the shapes differ.
        """
        self._check_open()
        values = {name: np.asarray(column) for name, column in columns.items()}
        rows = np.asarray(steps)
        for name, column in values.items():
            if rows.ndim != 1 or column.shape != rows.shape:
                raise ValueError(
                    f"mekax: extend expected {name!r} to have one value for each step, got shapes "
                    f"{column.shape} and {rows.shape}. Pass arrays of shape (steps,)."
                )
        for row, step in enumerate(rows):
            self.write(step, {name: column[row] for name, column in values.items()})

    def flush(self) -> None:
        """Wait for all records to be computed, and hand them to the operating system."""
        _drain(self._file, self._pending, wait_above=0)

    def close(self) -> None:
        """Flush, wait for the disk, and close the file; a second call does nothing."""
        self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if not self._finish.alive:
            raise ValueError(
                "mekax: expected an open Recorder, got one that is closed. Open a new one on the "
                "same path: it continues the recording."
            )

    def _step(self, step: Any) -> int:
        try:
            number = operator.index(step)
        except TypeError as error:
            raise TypeError(
                f"mekax: expected step to be a whole number, got {step!r}. Count the steps in "
                "Python, outside of jax.jit."
            ) from error
        if number < self._last:
            raise ValueError(
                f"mekax: expected steps not to go back, got {number} after {self._last}. To repeat "
                "steps from a checkpoint, open a new Recorder on the same path."
            )
        return number


def _merge(scalars: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    names = [*scalars, *extra]
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"mekax: expected names to be strings, got {name!r}.")
        if name == "step" or names.count(name) > 1:
            raise ValueError(
                f"mekax: expected every name once besides the step, got {name!r} again. "
                "Choose another name for one of them."
            )
    return {**scalars, **extra}


def _check_scalar(name: str, value: Any) -> None:
    if isinstance(value, jax.core.Tracer):
        raise TypeError(
            f"mekax: expected {name!r} to be a number, got a value traced by jax.jit. Return it "
            "from the compiled function and record it outside; of a scan, use Recorder.extend."
        )
    if isinstance(value, (bool, int, float)):
        return
    if not isinstance(value, (jax.Array, np.ndarray, np.generic)):
        raise TypeError(
            f"mekax: expected {name!r} to be a number, got {type(value).__name__}. "
            "Record real scalars only."
        )
    if value.ndim:
        raise TypeError(
            f"mekax: expected {name!r} to be a scalar, got an array of shape {value.shape}. "
            "Record its mean or norm, or use Recorder.extend for one value a step."
        )
    if not _is_real(value.dtype):
        raise TypeError(
            f"mekax: expected {name!r} to be a real number, got dtype {value.dtype}. "
            "Record real scalars only."
        )
    if isinstance(value, jax.Array) and value.is_deleted():
        raise ValueError(
            f"mekax: expected {name!r} to be there still, but its buffer was donated to a later "
            "step. Record the metrics of a state before the next step takes it."
        )


# What numpy says of a dtype takes as long as everything else about a scalar, and is asked at
# every step.
@cache
def _is_real(dtype: np.dtype) -> bool:
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))


@cache
def _dtype_name(dtype: np.dtype) -> str:
    return str(dtype)


@jax.jit
def _together(scalars: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Scalars by name ↦ arrays by dtype, each scalar in its own."""
    names = _names_by_dtype(scalars)
    return {dtype: jnp.stack([scalars[name] for name in names[dtype]]) for dtype in names}


def _names_by_dtype(scalars: Mapping[str, jax.Array]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for name in sorted(scalars):
        names.setdefault(_dtype_name(scalars[name].dtype), []).append(name)
    return names


def _number(value: Any) -> float:
    """A Python number; booleans become 0 and 1, whole numbers beyond 64 bits floats."""
    plain = value if isinstance(value, int | float) else value.item()
    return int(plain) if isinstance(plain, int) and abs(plain) < 2**63 else float(plain)


def _drain(file: RecordFile, pending: deque[_Record], wait_above: int) -> None:
    """Write what has arrived, in order, waiting while more than so many records are left."""
    while pending:
        record = pending[0]
        arrived = all(_is_ready(array) for array in record.on_device.values())
        if not arrived and len(pending) <= wait_above:
            return
        scalars = dict(record.on_host)
        for dtype, array in record.on_device.items():
            values = map(_number, np.asarray(array).tolist())
            scalars |= zip(record.names[dtype], values, strict=True)
        file.append(encode(record.step, scalars))
        pending.popleft()


def _is_ready(array: jax.Array) -> bool:
    return array.is_ready()  # pyright: ignore[reportAttributeAccessIssue]: not declared


def _finish(file: RecordFile, pending: deque[_Record]) -> None:
    try:
        _drain(file, pending, wait_above=0)
    finally:
        file.close()
