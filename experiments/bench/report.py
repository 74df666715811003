"""What a bench leaves: numbers for programs, tables and a picture for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .. import files
from .measure import Measured
from .plan import ALL, TABLE

NUMBERS, DOCUMENT, PICTURE = "bench.json", "bench.md", "bench.png"

Found = dict[str, list[Measured]]  # by table


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


def medians(rows: Sequence[Measured]) -> dict[str, dict[str, float]]:
    """Of each contender over all models, at batches of at least 128 and at all of them."""
    by_name: dict[str, list[Measured]] = {}
    for row in rows:
        by_name.setdefault(row.contender, []).append(row)
    return {
        name: {
            "time": float(np.median([r.to_adam for r in mine])),
            "time_large_batches": float(
                np.median([r.to_adam for r in mine if r.batch_size >= 128] or [np.nan])
            ),
            "memory": float(np.median([r.memory_to_adam or np.nan for r in mine])),
        }
        for name, mine in by_name.items()
    }


def document(found: Found) -> str:
    """Tables in Markdown."""
    lines = ["Relative to a step of Adam in the same process: median over the rounds.", ""]
    rows = found.get(TABLE, [])
    if rows:
        places = list(dict.fromkeys((r.case, r.batch_size) for r in rows))
        lines += _head("time", [f"{case}, {n}" for case, n in places], "median, batch ≥ 128")
        whole = medians(rows)
        for name in ALL:
            mine = {(r.case, r.batch_size): r for r in rows if r.contender == name}
            cells = [f"{mine[p].to_adam:.2f}" if p in mine else "" for p in places]
            lines.append(
                f"| {name} | {' | '.join(cells)} | {whole[name]['time_large_batches']:.2f} |"
            )
        lines.append("")
        lines += _head("memory", [f"{case}, {n}" for case, n in places], "median")
        for name in ALL:
            mine = {(r.case, r.batch_size): r for r in rows if r.contender == name}
            cells = [_times(mine[p].memory_to_adam) if p in mine else "" for p in places]
            lines.append(f"| {name} | {' | '.join(cells)} | {_times(whole[name]['memory'])} |")
        lines.append("")
        lines += _head("seconds to compile", [f"{case}, {n}" for case, n in places], "")
        for name in ALL:
            mine = {(r.case, r.batch_size): r for r in rows if r.contender == name}
            cells = [f"{mine[p].compile_seconds:.1f}" if p in mine else "" for p in places]
            lines.append(f"| {name} | {' | '.join(cells)} | |")
        lines.append("")
    for table in ("parameters", "batch"):
        rows = found.get(table, [])
        if rows:
            lines += [
                "| parameters | batch | optimizer | s/step | ÷ Adam | MB | ÷ Adam |",
                "|---|---|---|---|---|---|---|",
                *(
                    f"| {r.parameters:,} | {r.batch_size} | {r.contender} | {r.seconds:.2e} | "
                    f"{r.to_adam:.2f} | {(r.memory or 0) / 1e6:.1f} | {_times(r.memory_to_adam)} |"
                    for r in rows
                ),
                "",
            ]
    return "\n".join(lines)


def _head(what: str, columns: Sequence[str], last: str) -> list[str]:
    return [
        f"| {what} ÷ Adam's | {' | '.join(columns)} | {last} |"
        if what != "seconds to compile"
        else f"| {what} | {' | '.join(columns)} | {last} |",
        "|---" * (len(columns) + 2) + "|",
    ]


def _times(ratio: float | None) -> str:
    return "" if ratio is None or not np.isfinite(ratio) else f"{ratio:.2f}"


def draw(found: Found, out: Path) -> None:
    """Bars of the time of a step, and how time and memory grow."""
    from ..plots import figure, save

    whole = figure(16.0, 4.8)
    axes = whole.subplots(1, 3)
    _bars(axes[0], found.get(TABLE, []))
    for axis, table, x, label in (
        (axes[1], "parameters", "parameters", "parameters"),
        (axes[2], "batch", "batch_size", "examples per step"),
    ):
        _growth(axis, found.get(table, []), x, label)
    save(whole, out / PICTURE)


def _bars(axis: Any, rows: Sequence[Measured]) -> None:
    whole = medians(rows)
    names = [name for name in ALL if name in whole][::-1]
    axis.barh(names, [whole[name]["time"] for name in names], color="0.75")
    for place, name in enumerate(names):
        mine = [r.to_adam for r in rows if r.contender == name]
        axis.plot(mine, [place] * len(mine), "k.", markersize=4)
    axis.axvline(1.0, color="k", linewidth=0.8)
    axis.set_xscale("log")
    axis.set_xlabel("time of a step ÷ Adam's (dots: models and batches)")


def _growth(axis: Any, rows: Sequence[Measured], x: str, label: str) -> None:
    twin = axis.twinx()
    for name in dict.fromkeys(r.contender for r in rows):
        mine = [r for r in rows if r.contender == name]
        places = [getattr(r, x) for r in mine]
        (line,) = axis.plot(places, [r.seconds for r in mine], marker="o", label=name)
        twin.plot(
            places,
            [(r.memory or np.nan) / 1e6 for r in mine],
            linestyle=":",
            color=line.get_color(),
        )
    axis.set_xscale("log")
    axis.set_yscale("log")
    twin.set_yscale("log")
    axis.set_xlabel(label)
    axis.set_ylabel("seconds per step")
    twin.set_ylabel("MB (dotted)")
    axis.legend()
