from __future__ import annotations

import mmap
import operator
import os
import weakref
from collections import deque
from collections.abc import Mapping
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from .view.recording import HEADER, decode, encode

try:
    import fcntl
except ImportError:  # Windows: nothing keeps a second program out
    fcntl = None

_FIRST_LINE = f"{HEADER}\n".encode()
_PENDING = 32  # records that may wait for the device; then it is waited for


class Recorder:
    """Record scalars of a training, from any loop, to a file that `mekax view` shows.

    The file grows by one line of JSON for each record and is never rewritten: a crash costs the
    newest records at most. A new Recorder on the same path continues it: a torn last line is cut
    off, and the records of a training that went back to a checkpoint replace those of the steps
    that it repeats.

    `write` does not wait for the device. One small program copies the scalars, so that the state
    may be donated to the next step, and starts their transfer; a later call, or `close`, writes
    them. Only when 32 records are outstanding does `write` wait for the oldest.

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
        self._file = _File(Path(path).expanduser())
        self._last = 0
        self._finish = weakref.finalize(self, self._file.close)  # also if nobody closes it

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
        if not self._finish.alive:
            raise ValueError(
                "mekax: expected an open Recorder, got one that is closed. Open a new one on the "
                "same path: it continues the recording."
            )
        record = _record(self._step(step), _merge(scalars or {}, extra))
        self._last = record.step
        self._file.pending.append(record)
        self._file.write_pending(wait_above=_PENDING)

    def extend(self, steps: Any, columns: Mapping[str, Any]) -> None:
        """Record many steps at once, such as `jax.lax.scan` returns them; waits for the device.

        Args:
          steps: whole numbers, shape (n,), increasing, not below the step of the call before.
          columns: by name, an array of shape (n,) each.

        Raises:
          TypeError, ValueError: as `write`; or if the shapes differ.
        """
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
        self._file.write_pending()

    def close(self) -> None:
        """Flush, wait for the disk, and close the file; a second call does nothing."""
        self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

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


class _Record(NamedTuple):
    """A record whose numbers may still be computed."""

    step: int
    on_host: dict[str, float]
    names: list[str]  # of the scalars on the device, one dtype after the other
    on_device: list[jax.Array]  # these scalars, an array for each dtype


def _record(step: int, scalars: Mapping[str, Any]) -> _Record:
    """Check scalars, and start the transfer of those on the device."""
    for name, value in scalars.items():
        _check_scalar(name, value)
    device = {name: value for name, value in scalars.items() if isinstance(value, jax.Array)}
    host = {name: _number(value) for name, value in scalars.items() if name not in device}
    names = sorted(device, key=lambda name: (_dtype_name(device[name].dtype), name))
    stacked = _stack([device[name] for name in names]) if names else []
    for array in stacked:
        array.copy_to_host_async()
    return _Record(step, host, names, stacked)


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
        got = type(value).__name__
    elif value.ndim:
        got = f"an array of shape {value.shape}"
    elif not _is_real(value.dtype):
        got = f"dtype {value.dtype}"
    elif isinstance(value, jax.Array) and value.is_deleted():
        raise ValueError(
            f"mekax: expected {name!r} to be there still, but its buffer was donated to a later "
            "step. Record the metrics of a state before the next step takes it."
        )
    else:
        return
    raise TypeError(
        f"mekax: expected {name!r} to be a real scalar, got {got}. Record the mean or norm of an "
        "array, or use Recorder.extend for one value a step."
    )


# To ask NumPy about a dtype takes as long as the rest of the work on a scalar.
@cache
def _is_real(dtype: np.dtype) -> bool:
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))


@cache
def _dtype_name(dtype: np.dtype) -> str:
    return str(dtype)


# One stack of each dtype costs a quarter of copying 19 scalars one by one.
@jax.jit
def _stack(scalars: list[jax.Array]) -> list[jax.Array]:
    return [jnp.stack([*same]) for _, same in groupby(scalars, key=lambda scalar: scalar.dtype)]


def _number(value: Any) -> float:
    """A Python number; booleans become 0 and 1, whole numbers beyond 64 bits floats."""
    plain = value if isinstance(value, int | float) else value.item()
    return int(plain) if isinstance(plain, int) and abs(plain) < 2**63 else float(plain)


class _File:
    """A recording, new or begun before, to which one program appends whole lines.

    Each call hands its lines to the operating system at once: a program that is killed loses
    nothing of what was appended. What a crash left of a last line is cut off when the file is
    opened again; a failed append leaves the file as it was.
    """

    def __init__(self, path: Path):
        self.pending: deque[_Record] = deque()
        if path.is_dir():
            raise IsADirectoryError(
                f"mekax: expected the path of a file to record to, got the folder {path}. "
                f"Pass for example {path / 'run.jsonl'}."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)
        try:
            self._lock(path)
            self._size = self._intact(path)
            self._file.truncate(self._size)
            if not self._size:
                self._append(_FIRST_LINE)
        except BaseException:
            self._file.close()
            raise

    def write_pending(self, wait_above: int = 0) -> None:
        """Write what has arrived, in order, waiting while more than so many records are left."""
        while self.pending:
            step, scalars, names, arrays = self.pending[0]
            arrived = all(array.is_ready() for array in arrays)  # pyright: ignore[reportAttributeAccessIssue]
            if len(self.pending) <= wait_above and not arrived:
                return
            values = [_number(value) for array in arrays for value in np.asarray(array).tolist()]
            self._append(encode(step, {**scalars, **dict(zip(names, values, strict=True))}))
            self.pending.popleft()

    def close(self) -> None:
        """Write everything, wait for the disk and close the file."""
        try:
            self.write_pending()
        finally:
            os.fsync(self._file.fileno())
            self._file.close()

    def _append(self, lines: bytes) -> None:
        """Append lines, all of them or none."""
        try:
            written = 0
            while written < len(lines):
                written += self._file.write(lines[written:]) or 0
        except BaseException:
            self._file.truncate(self._size)
            raise
        self._size += len(lines)

    def _lock(self, path: Path) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BlockingIOError(
                f"mekax: expected a recording that nothing else writes to, but {path} is in use. "
                "Close the other Recorder, or pass another path."
            ) from error

    def _intact(self, path: Path) -> int:
        """Length of the file up to the end of its last whole line."""
        if not path.stat().st_size:
            return 0
        with mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            first = content[: len(_FIRST_LINE)]
            begin = content.rfind(b"\n", 0, len(content) - 1) + 1
            last = content[begin:]
        if _FIRST_LINE.startswith(first) and first != _FIRST_LINE:
            return 0  # killed while the first line was written
        if first != _FIRST_LINE:
            raise ValueError(
                f"mekax: expected {path} to be a recording or not to exist, but it does not begin "
                f"with {HEADER}. Pass another path; the file has been left as it is."
            )
        try:
            if begin:
                decode(last)
        except ValueError:
            return begin  # such as the zeros that a crash of the machine may leave
        return begin + len(last) if last.endswith(b"\n") else begin
