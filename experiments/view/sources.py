"""What the named runs recorded: files of a Recorder, folders of a comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..errors import UsageError
from ..registry import OPTIMIZERS
from ..results import JOBS, jobs, read_job
from .recording import HEADER, decode

_EXPECTED = "Name a file that a Recorder wrote, or a folder that mekax compare wrote."
_NOT_DRAWN = ["run", "iterate", "seconds"]  # columns of results
_NAMED = 5  # damaged lines whose numbers are given


class Recording(NamedTuple):
    """What a training recorded."""

    name: str
    series: dict[str, pd.Series]  # by quantity, float64, finite or not; indexed by increasing steps
    group: str = ""  # what the runs that it compares with share, such as the problem
    family: str = ""  # what runs share that differ by the seed alone, such as the optimizer
    note: str = ""  # what is to be known about it, in sentences


def finite(values: pd.Series) -> pd.Series:
    """Those that are finite."""
    return values.replace([np.inf, -np.inf], np.nan).dropna()


def load(paths: Sequence[Path]) -> list[Recording]:
    """Read recordings, each under a name of its own.

    Args:
      paths: files written by a `Recorder`; folders that hold some, named `*.jsonl`, or the results
        of `mekax compare`; or a file of such results.

    Returns:
      The recordings, those of one path one after the other.

    Raises:
      UsageError: if a path is missing, is something else, or holds nothing that was recorded.
    """
    unique = dict.fromkeys(path.resolve() for path in paths)
    recorded = [(path, run) for path in unique for run in _of(path) if run.series]
    if not recorded:
        raise UsageError(
            f"expected runs that have recorded something, but there is nothing yet in "
            f"{', '.join(map(str, paths))}. Wait for the first records, or name other runs."
        )
    return _distinguish(recorded)


def _of(path: Path) -> list[Recording]:
    if path.suffix == ".json" and path.exists():
        content = read_job(path)
        if content is None and (path.parent / JOBS).is_dir():  # of what all runs share
            return _runs(*jobs(path.parent))
        return _runs([content], []) if content else _runs([], [path])
    if not path.is_dir():
        return [read(path)]
    runs = _runs(*jobs(path)) + [read(file) for file in sorted(path.glob("*.jsonl"))]
    if not runs:
        raise UsageError(
            f"expected recordings, but the folder {path} holds neither the results of a comparison "
            f"nor files that end in .jsonl. {_EXPECTED}"
        )
    return runs


def read(path: Path) -> Recording:
    """Read a recording, also one that is being written or whose writer was killed.

    A last line that was cut off and lines that are damaged are left out, and noted. A record
    replaces all before it of later steps: a training that continues from a checkpoint repeats
    steps. Of records of the same step, the last value of a name counts.
    """
    try:
        first, *lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UsageError(
            f"expected a recording, but {path} cannot be read ({error.strerror or error}). "
            f"{_EXPECTED}"
        ) from error
    if first != HEADER.encode():
        raise UsageError(
            f"expected {path} to be a recording, but it does not begin with {HEADER}. {_EXPECTED}"
        )
    cut_off = bool(lines and lines.pop())
    records: list[tuple[int, dict[str, float]]] = []
    damaged: list[int] = []
    for number, line in enumerate(lines, start=2):
        try:
            step, scalars = decode(line)
        except ValueError:
            damaged.append(number)
            continue
        if records and step < records[-1][0]:
            while records and records[-1][0] >= step:
                records.pop()
        records.append((step, scalars))
    if damaged[-1:] == [len(lines) + 1]:  # what a crash may leave at the end, with a line's end
        cut_off = bool(lines[damaged.pop() - 2])
    found: dict[str, dict[int, float]] = {}
    for step, scalars in records:
        for name, value in scalars.items():
            found.setdefault(name, {})[step] = value
    series = {name: pd.Series(values) for name, values in found.items()}
    named = ", ".join(map(str, damaged[:_NAMED]))
    more = f", … ({len(damaged)} in all)" if len(damaged) > _NAMED else ""
    notes = [f"Damaged lines are left out: {named}{more}."] if damaged else []
    notes += ["The last line was cut off and is left out."] if cut_off else []
    return Recording(path.stem, series, note=" ".join(notes))


def _runs(contents: Sequence[Mapping[str, Any]], damaged: Sequence[Path]) -> list[Recording]:
    """The runs of `mekax compare`, as many of them as can be understood."""
    runs: list[tuple[Recording, int]] = []  # and seeds
    lost = [path.name for path in damaged]
    for content in contents:
        try:
            runs += list(_of_job(content))
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
            lost.append(f"a file of {content['optimizer']}")
    if lost and not runs:
        raise UsageError(
            f"expected results of a comparison, but these cannot be understood: {', '.join(lost)}. "
            f"They have been left as they are. {_EXPECTED}"
        )
    note = f"Damaged results are left out: {', '.join(lost)}." if lost else ""
    seeds = Counter((run.group, run.family) for run, _ in runs)
    return [
        run._replace(
            name=f"{run.name}, seed {seed}" if seeds[run.group, run.family] > 1 else run.name,
            note=f"{run.note} {note}".strip(),
        )
        for run, seed in runs
    ]


def _of_job(content: Mapping[str, Any]) -> Iterator[tuple[Recording, int]]:
    """The runs in one file, with their seeds."""
    optimizer = OPTIMIZERS.get(content["optimizer"])
    for place, run in enumerate(content["runs"]):
        label = optimizer.label(run["setting"]) if optimizer else content["optimizer"]
        # Where a metric was recorded at every step, its evaluations add nothing.
        series = _series(content["evaluations"], place) | _series(content["steps"], place)
        note = "" if run["status"] == "finished" else f"The run was {run['status']}."
        yield Recording(label, series, str(content["workload"]), label, note), int(run["seed"])


def _series(columns: Mapping[str, Sequence[Any]], run: int) -> dict[str, pd.Series]:
    """The columns of a run, evaluated at the last iterate, where null is what is not finite."""
    frame = pd.DataFrame(columns)
    if frame.empty:
        return {}
    frame = frame[(frame["run"] == run) & (frame.get("iterate", "last") == "last")]
    frame = frame.astype({"step": np.int64}).set_index("step")
    numbers = frame.drop(columns=_NOT_DRAWN, errors="ignore").astype(float)
    return {str(name): one for name, one in numbers.items() if finite(one).size}


def _distinguish(recorded: Sequence[tuple[Path, Recording]]) -> list[Recording]:
    """Give runs of one name in one group the name of their folder or file, else a number."""
    result = []
    names = Counter((recording.group, recording.name) for _, recording in recorded)
    taken: Counter[tuple[str, str]] = Counter()
    for path, recording in recorded:
        name = recording.name
        if names[recording.group, name] > 1:
            name = f"{path.parent.name if path.is_file() else path.name}: {name}"
        taken[recording.group, name] += 1
        if taken[recording.group, name] > 1:
            name = f"{name} ({taken[recording.group, name]})"
        family = recording.family and name.removesuffix(recording.name) + recording.family
        result.append(recording._replace(name=name, family=family or name))
    return result
