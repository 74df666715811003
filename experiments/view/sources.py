"""What the named runs recorded: files of a Recorder, folders of a comparison."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from ..recording import Recording, Series, read
from ..runs import Run
from ..settings import RESULTS

_EXPECTED = "Name a file that a Recorder wrote, or a folder that mekax compare wrote."
_NOT_DRAWN = ("seconds",)  # the clock of a comparison


def load(paths: Sequence[Path]) -> list[Recording]:
    """Read recordings, each under a name of its own.

    Args:
      paths: files written by a `Recorder`; folders that hold some, named `*.jsonl`, or the results
        of `mekax compare`; or such a file of results.

    Returns:
      The recordings, those of one path one after the other.

    Raises:
      UsageError: if a path is missing, is something else, or holds nothing that was recorded.
    """
    found: list[tuple[Path, Recording]] = []
    for path in dict.fromkeys(path.resolve() for path in paths):
        found += [(path, recording) for recording in _of(path)]
    recorded = [(path, recording) for path, recording in found if recording.series]
    if not recorded:
        raise UsageError(
            f"expected runs that have recorded something, but there is nothing yet in "
            f"{', '.join(map(str, paths))}. Wait for the first records, or name other runs."
        )
    return _distinguish(recorded)


def _of(path: Path) -> list[Recording]:
    if path.is_dir():
        recordings = [read(file) for file in sorted(path.glob("*.jsonl"))]
        if (path / RESULTS).exists():
            return [*_of_comparison(path / RESULTS), *recordings]
        if not recordings:
            raise UsageError(
                f"expected recordings, but the folder {path} holds neither {RESULTS} of a "
                f"comparison nor files that end in .jsonl. {_EXPECTED}"
            )
        return recordings
    return _of_comparison(path) if path.name == RESULTS else [read(path)]


def _of_comparison(path: Path) -> list[Recording]:
    """The runs of `mekax compare`, as many of them as the file holds whole."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(
            f"expected the results of a comparison, but {path} cannot be read "
            f"({error.strerror or error}). {_EXPECTED}"
        ) from error
    contents, whole = _runs(text)
    runs: list[Run] = []
    for content in contents:
        try:
            run = Run.from_dict(content)
            hash((run.problem, run.spec, run.seed, run.spec.label))
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
            whole = False
        else:
            runs.append(run)
    if not runs and not whole:
        raise UsageError(
            f"expected {path} to be the results of a comparison, but it cannot be understood. "
            f"It has been left as it is. {_EXPECTED}"
        )
    note = "" if whole else f"{path.name} is damaged; of its runs, those that are whole are shown."
    first = [run.spec for run in runs]
    runs.sort(key=lambda run: first.index(run.spec))  # seeds of one optimizer side by side
    several = {(run.problem, run.spec) for run in runs if run.seed != runs[0].seed}
    return [_recording(run, (run.problem, run.spec) in several, note) for run in runs]


def _runs(text: str) -> tuple[list[Any], bool]:
    """The runs in a file of results, and whether the file is whole."""
    try:
        content = json.loads(text)
        return list(content["runs"]), True
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    start = text.find('"runs": [')
    runs: list[Any] = []
    decoder, place = json.JSONDecoder(), start + len('"runs": [')
    while start >= 0:
        try:
            run, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            break
        runs.append(run)
        place += len(", ")
    return runs, False


def _recording(run: Run, several_seeds: bool, note: str) -> Recording:
    series: dict[str, Series] = {}
    for name in run.chunks[0] if run.chunks else ():
        values = run.record(name)
        series[name] = Series(1 + run.stride * np.arange(values.size), values)
    for name in run.evaluations[0].values if run.evaluations else ():
        steps, _, values = run.curve(name)
        series[name] = Series(steps, values)
    return Recording(
        name=f"{run.spec.label}, seed {run.seed}" if several_seeds else run.spec.label,
        series={name: one for name, one in series.items() if name not in _NOT_DRAWN},
        group=str(run.problem),
        family=run.spec.label,
        note=" ".join(filter(None, [_ended(run), note])),
    )


def _ended(run: Run) -> str:
    return "" if run.status == "finished" else f"The run was {run.status}."


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
