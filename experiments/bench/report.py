"""What a bench leaves: numbers for programs, tables and a picture for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .. import files
from .backpack import Compared
from .measure import Measured
from .plan import ALL, BACKPACK, TABLE

NUMBERS, DOCUMENT, PICTURE = "bench.json", "bench.md", "bench.png"
LARGE = 128  # batches of at least so many examples are those that a step is judged by

Found = dict[str, Any]  # rows by table: of Measured, under BACKPACK of Compared


def write(found: Found, out: Path, command: Sequence[str]) -> None:
    """Write what has been measured so far into the folder."""
    content = {
        "command": list(command),
        "versions": files.versions(),
        "device": files.device(),
        "tables": {name: [asdict(one) for one in rows] for name, rows in found.items()},
        "medians": medians(found.get(TABLE, [])),
    }
    files.write_json(out / NUMBERS, content)
    (out / DOCUMENT).write_text(document(found), encoding="utf-8")


def medians(rows: Sequence[Measured]) -> dict[str, dict[str, float | None]]:
    """Of each contender over the models with large batches, relative to Adam."""
    found = {}
    for name in dict.fromkeys(row.contender for row in rows):
        mine = [row for row in rows if row.contender == name and row.batch_size >= LARGE]
        found[name] = {
            "time": _median([row.to_adam for row in mine]),
            "memory": _median([r.memory_to_adam for r in mine if r.memory_to_adam is not None]),
            "compile": _median([row.compile_to_adam for row in mine]),
            "lines": _median([row.lines_to_adam for row in mine]),
        }
    return found


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


def document(found: Found) -> str:
    """Tables in Markdown."""
    lines = ["Relative to Adam's in the same process, medians over the rounds.", ""]
    rows = found.get(TABLE, [])
    if rows:
        whole = medians(rows)
        lines += _by_place(
            "time of a step",
            rows,
            lambda row: _times(row.to_adam),
            lambda name: _times(whole[name]["time"]),
        )
        lines += _by_place(
            "memory",
            rows,
            lambda row: _times(row.memory_to_adam),
            lambda name: _times(whole[name]["memory"]),
        )
        if any(row.device_peak for row in rows):
            lines += _by_place("peak on the device", rows, _megabytes_of_device, lambda name: "")
        lines += _by_place(
            "time to compile",
            rows,
            lambda row: _times(row.compile_to_adam),
            lambda name: _times(whole[name]["compile"]),
        )
        lines += _by_place(
            "lines of StableHLO",
            rows,
            lambda row: _times(row.lines_to_adam),
            lambda name: _times(whole[name]["lines"]),
        )
        lines += _by_place(
            "seconds to compile", rows, lambda row: f"{row.compile_seconds:.1f}", lambda name: ""
        )
    for table, rows in found.items():
        if table == BACKPACK:
            lines += _compared(rows)
        elif table != TABLE:
            lines += _growth(table, rows)
    return "\n".join(lines)


def _by_place(
    what: str,
    rows: Sequence[Measured],
    cell: Callable[[Measured], str],
    last: Callable[[str], str],
) -> list[str]:
    """A line for each contender, a column for each model and batch."""
    places = sorted(
        {(row.case, row.batch_size) for row in rows},
        key=lambda place: ([row.case for row in rows].index(place[0]), place[1]),
    )
    by_place = {(row.contender, row.case, row.batch_size): cell(row) for row in rows}
    head = [what, *(f"{case}, {n}" for case, n in places), f"median, batch ≥ {LARGE}"]
    body = [
        [name, *(by_place.get((name, *place), "") for place in places), last(name)]
        for name in ALL
        if any(row.contender == name for row in rows)
    ]
    return _table(head, body)


def _growth(table: str, rows: Sequence[Measured]) -> list[str]:
    head = [table, "model", "parameters", "batch", "ms/step", "÷ Adam's", "MB", "÷ Adam's"]
    body = [
        [
            row.contender,
            row.case,
            f"{row.parameters:,}",
            str(row.batch_size),
            f"{1e3 * row.seconds:.3g}",
            _times(row.to_adam),
            "" if row.memory is None else f"{row.memory / 1e6:.1f}",
            _times(row.memory_to_adam),
        ]
        for row in rows
    ]
    return _table(head, body)


def _compared(rows: Sequence[Compared]) -> list[str]:
    head = ["variances of gradients", "parameters", "batch", "ms", "÷ its gradient alone"]
    body = [
        [
            row.library,
            f"{row.parameters:,}",
            str(row.batch_size),
            f"{1e3 * row.seconds:.3g}",
            f"{row.to_gradient:.2f} ({row.low:.2f}–{row.high:.2f})",
        ]
        for row in rows
    ]
    return _table(head, body)


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    rows = [head, ["---"] * len(head), *body]
    return [*(f"| {' | '.join(row)} |" for row in rows), ""]


def _megabytes_of_device(row: Measured) -> str:
    return "" if row.device_peak is None else f"{row.device_peak / 1e6:.0f} MB"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def draw(found: Found, out: Path) -> None:
    """Bars of the time of a step, and how time and memory grow."""
    from ..plots import figure, save

    whole = figure(16.0, 4.8)
    axes = whole.subplots(1, 3)
    _bars(axes[0], found.get(TABLE, []))
    _curves(axes[1], found.get("parameters", []), "parameters", "parameters")
    _curves(axes[2], found.get("batch", []), "batch_size", "examples per step")
    save(whole, out / PICTURE)


def _bars(axis: Any, rows: Sequence[Measured]) -> None:
    rows = [row for row in rows if row.batch_size >= LARGE]
    whole = medians(rows)
    names = [name for name in ALL if name in whole][::-1]
    axis.barh(names, [whole[name]["time"] for name in names], color="0.75")
    for place, name in enumerate(names):
        mine = [row.to_adam for row in rows if row.contender == name]
        axis.plot(mine, [place] * len(mine), "k.", markersize=4)
    axis.axvline(1.0, color="k", linewidth=0.8)
    axis.axvline(1.6, color="k", linewidth=0.8, linestyle=":")
    axis.set_xlabel(f"time of a step ÷ Adam's (dots: models, batch ≥ {LARGE}; dotted: 1.6)")


def _curves(axis: Any, rows: Sequence[Measured], x: str, label: str) -> None:
    if not rows:
        return
    twin = axis.twinx()
    for name in dict.fromkeys(row.contender for row in rows):
        mine = [row for row in rows if row.contender == name]
        places = [getattr(row, x) for row in mine]
        (line,) = axis.plot(places, [row.seconds for row in mine], marker="o", label=name)
        megabytes = [np.nan if row.memory is None else row.memory / 1e6 for row in mine]
        twin.plot(places, megabytes, linestyle=":", color=line.get_color())
    axis.set_xscale("log")
    axis.set_yscale("log")
    twin.set_yscale("log")
    axis.set_xlabel(label)
    axis.set_ylabel("seconds per step")
    twin.set_ylabel("MB (dotted)")
    axis.legend()
