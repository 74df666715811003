"""What a profile leaves: numbers for programs, tables and a picture for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..results import device, versions, write_json
from .timing import Row

NUMBERS, DOCUMENT, PICTURE = "profile.json", "profile.md", "profile.png"
LARGE = 128  # batches of at least so many examples are those that a step is judged by

Results = Mapping[str, Sequence[Row]]  # rows by table
_SIZE = {"parameters": "{parameters:,}", "batch": "{batch_size:,}"}
_GROWTH = {
    "optimizer": "{optimizer}",
    "model": "{model}",
    **_SIZE,
    "ms/step": "{milliseconds:.3g}",
    "time ÷ Adam's": "{seconds_to_adam:.2f}",
    "MB": "{megabytes:.1f}",
    "memory ÷ Adam's": "{memory_to_adam:.2f}",
}
_COLUMNS = {  # headings and formats of the tables that have a line for each row
    "BackPACK": {
        "variances of gradients": "{library}",
        **_SIZE,
        "ms": "{milliseconds:.3g}",
        "÷ its gradient alone": "{to_gradient:.2f} ({low:.2f}–{high:.2f})",
    },
    "recording": {
        **_SIZE,
        "ms/step": "{milliseconds:.3f}",
        "ms/step, recorded": "{milliseconds_recorded:.3f}",
        "ms to write a record, the device being idle": "{milliseconds_of_writing:.3f}",
        "bytes of a record": "{bytes:.0f}",
    },
    "communication": {
        "optimizer": "{optimizer}",
        **_SIZE,
        "collectives": "{collectives}",
        "bytes": "{bytes:,}",
        "bytes / 4D": "{bytes_to_gradient:.3f}",
    },
}
_QUANTITIES = {  # of the tables that have a line for each optimizer: heading, column, format
    "time of a step": ("seconds_to_adam", "{:.2f}"),
    "memory": ("memory_to_adam", "{:.2f}"),
    "peak on the device, MB": ("device_peak", "{:.0f}"),
    "time to compile": ("compile_seconds_to_adam", "{:.2f}"),
    "lines of StableHLO": ("stablehlo_lines_to_adam", "{:.2f}"),
    "seconds to compile": ("compile_seconds", "{:.1f}"),
}


def write(results: Results, out: Path, command: Sequence[str]) -> None:
    """Write what has been measured so far into the folder."""
    content = {
        "command": list(command),
        "versions": versions(),
        "device": device(),
        "tables": results,
        "medians": medians(results.get("models", ())).to_dict("index"),
    }
    write_json(out / NUMBERS, content)
    (out / DOCUMENT).write_text(document(results), encoding="utf-8")


def medians(rows: Sequence[Row]) -> pd.DataFrame:
    """What each optimizer costs relative to Adam, over the models with large batches."""
    frame = pd.DataFrame([row for row in rows if row["batch_size"] >= LARGE])
    if frame.empty:
        return frame
    return (
        frame.set_index("optimizer").filter(like="_to_adam").groupby(level=0, sort=False).median()
    )


def document(results: Results) -> str:
    """Tables in Markdown."""
    tables = ["Relative to Adam's in the same process, medians over the rounds."]
    for table, rows in results.items():
        if table == "models":
            tables += _by_model(rows)
        elif rows:
            shown = _by_row(rows, _COLUMNS.get(table, _GROWTH))
            tables += [f"### {table}", _markdown(shown, index=False)]
    return "\n\n".join(tables) + "\n"


def _by_model(rows: Sequence[Row]) -> list[str]:
    """For each quantity a line for each optimizer, a column for each model and batch."""
    frame = pd.DataFrame(rows)
    order = pd.Categorical(frame.model, frame.model.unique())
    frame = frame.assign(model=order, device_peak=frame.device_peak / 1e6)
    tables = []
    for heading, (column, form) in _QUANTITIES.items():
        table = frame.pivot(index="optimizer", columns=["model", "batch_size"], values=column)
        table = table.sort_index(axis=1).reindex(frame.optimizer.unique()).dropna(how="all")
        table.columns = [f"{model}, {batch}" for model, batch in table.columns]
        if column in (overall := medians(rows)):
            table[f"median, batch ≥ {LARGE}"] = overall[column]
        if not table.empty:
            shown = table.map(form.format, na_action="ignore").fillna("")
            tables.append(_markdown(shown.rename_axis(heading), index=True))
    return tables


def _by_row(rows: Sequence[Row], columns: Mapping[str, str]) -> pd.DataFrame:
    def show(row: Row) -> dict[str, str]:
        if "seconds" in row:
            row = {**row, "milliseconds": 1e3 * row["seconds"], "megabytes": row["memory"] / 1e6}
        return {heading: form.format(**row) for heading, form in columns.items()}

    return pd.DataFrame(list(map(show, rows))).replace("nan", "")


def _markdown(frame: pd.DataFrame, *, index: bool) -> str:
    return frame.to_markdown(index=index, disable_numparse=True)


def draw(results: Results, out: Path) -> None:
    """Bars of the time of a step, and how time and memory grow."""
    from ..plots import figure, save

    fig = figure(16.0, 4.8)
    bars, parameters, batch = fig.subplots(1, 3)
    _bars(bars, [row for row in results.get("models", ()) if row["batch_size"] >= LARGE])
    _curves(parameters, results.get("parameters", ()), "parameters", "parameters")
    _curves(batch, results.get("batch", ()), "batch_size", "examples per step")
    save(fig, out / PICTURE)


def _bars(axis: Any, rows: Sequence[Row]) -> None:
    if rows:
        times = medians(rows).seconds_to_adam[::-1]
        axis.barh(times.index, times, color="0.75")
        dots = pd.DataFrame(rows)
        axis.plot(dots.seconds_to_adam, dots.optimizer, "k.", markersize=4)
    axis.axvline(1.0, color="k", linewidth=0.8)
    axis.axvline(1.6, color="k", linewidth=0.8, linestyle=":")
    axis.set_xlabel(f"time of a step ÷ Adam's (dots: models, batch ≥ {LARGE}; dotted: 1.6)")


def _curves(axis: Any, rows: Sequence[Row], x: str, label: str) -> None:
    if not rows:
        return
    twin = axis.twinx()
    for name, curve in pd.DataFrame(rows).groupby("optimizer", sort=False):
        (line,) = axis.plot(curve[x], curve.seconds, marker="o", label=name)
        twin.plot(curve[x], curve.memory / 1e6, ":", color=line.get_color())
    axis.set(xscale="log", yscale="log", xlabel=label, ylabel="seconds per step")
    twin.set(yscale="log", ylabel="MB (dotted)")
    axis.legend()
