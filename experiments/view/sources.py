"""What the named runs recorded: files of a Recorder, folders of a comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from ..registry import OPTIMIZERS
from ..results import JOBS, jobs, read_job
from .recording import Recording, Series, read

_EXPECTED = "Name a file that a Recorder wrote, or a folder that mekax compare wrote."
_NOT_DRAWN = {"run", "step", "iterate", "seconds"}  # columns of results


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
        return _runs([content] if content else [], [] if content else [path])
    if not path.is_dir():
        return [read(path)]
    compared = _runs(*jobs(path)) if (path / JOBS).is_dir() else []
    recordings = [read(file) for file in sorted(path.glob("*.jsonl"))]
    if not compared and not recordings:
        raise UsageError(
            f"expected recordings, but the folder {path} holds neither the results of a comparison "
            f"nor files that end in .jsonl. {_EXPECTED}"
        )
    return [*compared, *recordings]


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


def _series(columns: Mapping[str, Sequence[Any]], run: int) -> dict[str, Series]:
    """The columns of a run, evaluated at the last iterate, where null is what is not finite."""
    runs = columns.get("run", ())
    iterates = columns.get("iterate", ["last"] * len(runs))
    rows = [
        row for row, pair in enumerate(zip(runs, iterates, strict=True)) if pair == (run, "last")
    ]
    series = {}
    for name in columns.keys() - _NOT_DRAWN if rows else ():
        steps = np.array([columns["step"][row] for row in rows], np.int64)
        values = [columns[name][row] for row in rows]
        numbers = np.array([np.nan if value is None else value for value in values], np.float64)
        if np.isfinite(numbers).any():
            series[name] = Series(steps, numbers)
    return series


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
