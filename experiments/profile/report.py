"""What a profile leaves: numbers for programs, tables and a picture for people."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..plots import figure, save
from ..results import device, versions, write_json

NUMBERS, DOCUMENT, PICTURE = "profile.json", "profile.md", "profile.png"
_LARGE = 128  # batches of at least so many examples are those that a step is judged by

Results = Mapping[str, pd.DataFrame]  # by table
_HEADINGS = {  # of what is shown in the tables that have a line for each row
    "optimizer": "optimizer",
    "library": "variances of gradients",
    "model": "model",
    "parameters": "parameters",
    "batch_size": "batch",
    "milliseconds": "ms",
    "seconds_to_adam": "time ÷ Adam's",
    "to_gradient": "÷ its gradient alone",
    "low": "lower quartile",
    "high": "upper quartile",
    "megabytes": "MB",
    "memory_to_adam": "memory ÷ Adam's",
    "milliseconds_recorded": "ms, recorded",
    "milliseconds_of_writing": "ms to write a record, the device being idle",
    "collectives": "collectives",
    "bytes": "bytes",
    "bytes_to_gradient": "bytes / 4D",
}
_QUANTITIES = {  # of the tables that have a line for each optimizer
    "seconds_to_adam": "time of a step",
    "memory_to_adam": "memory",
    "device_peak": "peak on the device, MB",
    "compile_seconds_to_adam": "time to compile",
    "stablehlo_lines_to_adam": "lines of StableHLO",
    "compile_seconds": "seconds to compile",
}

_GROWTH = {"parameters": "parameters", "batch": "batch_size"}  # what is drawn over which column


def write(results: Results, out: Path, command: Sequence[str]) -> None:
    """Write what has been measured so far into the folder."""
    content = {
        "command": command,
        "versions": versions(),
        "device": device(),
        "tables": {table: frame.to_dict("records") for table, frame in results.items()},
        "medians": medians(results["models"]).to_dict("index") if "models" in results else {},
    }
    write_json(out / NUMBERS, content)
    (out / DOCUMENT).write_text(document(results), encoding="utf-8")


def medians(models: pd.DataFrame) -> pd.DataFrame:
    """What each optimizer costs relative to Adam, over the models with large batches."""
    ratios = _large(models).set_index("optimizer").filter(like="_to_adam")
    return ratios.groupby(level=0, sort=False).median()


def _large(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.loc[frame.batch_size >= _LARGE]


def document(results: Results) -> str:
    """Tables in Markdown."""
    tables = ["Times in ms are of a step; ratios to Adam's are medians over rounds in one process."]
    for table, frame in results.items():
        if table == "models":
            tables += _by_model(frame)
            continue
        if "seconds" in frame:
            frame = frame.assign(milliseconds=1e3 * frame.seconds, megabytes=frame.memory / 1e6)
        shown = frame.filter(list(_HEADINGS)).rename(columns=_HEADINGS)
        tables += [f"### {table}", _markdown(shown, index=False, floatfmt=".4g")]
    return "\n\n".join(tables) + "\n"


def _by_model(frame: pd.DataFrame) -> list[str]:
    """For each quantity a line for each optimizer, a column for each model and batch."""
    order = pd.Categorical(frame.model, frame.model.unique())
    frame = frame.assign(model=order, device_peak=frame.device_peak / 1e6)
    overall, tables = medians(frame), []
    for name, heading in _QUANTITIES.items():
        table = frame.pivot(index="optimizer", columns=["model", "batch_size"], values=name)
        table = table.sort_index(axis=1).reindex(frame.optimizer.unique()).dropna(how="all")
        table.columns = [f"{model}, {batch}" for model, batch in table.columns]
        if name in overall:
            table[f"median, batch ≥ {_LARGE}"] = overall[name]
        if len(table):
            tables.append(_markdown(table.rename_axis(heading), index=True, floatfmt=".2f"))
    return tables


def _markdown(frame: pd.DataFrame, **options: Any) -> str:
    frame = frame.astype(object).replace({np.nan: None})
    return frame.to_markdown(intfmt=",", missingval="", **options)


def draw(results: Results, out: Path) -> None:
    """Bars of the time of a step, and how time and memory grow."""
    fig = figure(16.0, 4.8)
    bars, *growth = fig.subplots(1, 3)
    if "models" in results:
        times = medians(results["models"]).seconds_to_adam[::-1]
        bars.barh(times.index, times, color="0.75")
        bars.plot("seconds_to_adam", "optimizer", "k.", data=_large(results["models"]))
    bars.axvline(1.0, color="k", linewidth=0.8)
    bars.axvline(1.6, color="k", linewidth=0.8, linestyle=":")
    bars.set_xlabel(f"time of a step ÷ Adam's (dots: models, batch ≥ {_LARGE}; dotted: 1.6)")
    for axes, (table, x) in zip(growth, _GROWTH.items(), strict=True):
        if table in results:
            curves = results[table].pivot(index=x, columns="optimizer")
            options = {"loglog": True, "xlabel": _HEADINGS[x]}
            curves.seconds.plot(ax=axes, marker="o", ylabel="seconds per step", **options)
            memory = curves.memory / 1e6
            memory.plot(ax=axes.twinx(), style=":", legend=False, ylabel="MB (dotted)", **options)
    save(fig, out / PICTURE)
