"""What a benchmark comes to: a summary for programs, a document and figures for people."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from .. import plots, results
from ..registry import group
from ..results import Frame, Interval
from . import suite
from .ratios import (
    Row,
    Rows,
    best_baseline,
    compared,
    means,
    overall,
    rows_of,
    scales,
    to_ours,
    wins,
)
from .suite import REFERENCE

SUMMARY, DOCUMENT = "summary.json", "benchmark.md"
_EDGE, _AT_EDGE = "†", "at the edge"

_READING = """\
Losses are means over seeds with 95 % bootstrap intervals. `÷` columns are ratios of final train
losses, geometric means over paired seeds: below 1 is better than Adam at its default rate
(`÷ Adam 1e-3`), Adam at the best of its sweep of rates and schedules (`÷ best Adam`), and the best
setting of all baselines together (`÷ best`). The best Adam is the better of two: the best last
iterate, and the best average. Ratios are of what the losses are above the floor of their problem,
where that is not 0. `≤ 1.1 Adam`: share of workloads within a tenth of the
best Adam. `test ÷ Adam`: wrong answers, or the test loss, over the best Adam's. `equal time`:
train loss at the time when the best Adam ends, over its own; whoever is faster than Adam stops
at its last step. `time`: time to the best Adam's final train loss over Adam's time to it, ∞ if
never; `with sweep`: the same with all settings counted that were trained to find the row's and
Adam's. `s/step`: time of a step over that of Adam's. The best setting of a baseline is the one
with the lowest final train loss; † marks one at the edge of its sweep of rates, beyond which a
better one may lie: there is no ratio to it, nor of it. `workloads` tells how many have a ratio to
the best Adam. Over the workloads, `mean` is geometric, with the interval of a bootstrap over
workloads, and `worst` is the largest ratio. `score`: area under the performance profile for the
target of the best Adam's final train loss, from 0 to 1, counted in steps and in seconds (Dahl et
al. 2023, arXiv 2306.07179). `rose`: trainings whose train loss over the last three evaluations
lies above twice the lowest over three in a row.
"""


def suite_table(lines: Frame) -> Frame:
    """One line per optimizer over the workloads."""
    table = pd.DataFrame(
        {
            "workloads": [
                f"{some} of {whole}" if some < whole else str(whole)
                for some, whole in zip(lines["compared"], lines["workloads"], strict=True)
            ]
        },
        index=lines.index,
    )
    table["÷ Adam 1e-3"] = lines["to_default"].map(_number)
    table["÷ best Adam"] = lines["to_adam"].map(_number)
    table["mean"] = lines["mean"].map(_interval)
    table["worst"] = [
        f"{_number(worst)} ({name})" if name else "–"
        for worst, name in zip(lines["worst"], lines["worst_workload"], strict=True)
    ]
    table["÷ best"] = lines["to_best"].map(_number)
    table["≤ 1.1 Adam"] = lines["near_adam"].map(_share)
    for heading, column in {
        "test ÷ Adam": "test_to_adam",
        "equal time": "equal_time",
        "time": "time_to_target",
        "with sweep": "time_with_sweep",
        "score, steps": "score_steps",
        "score, seconds": "score_seconds",
        "s/step": "seconds",
    }.items():
        table[heading] = lines[column].map(_number)
    for heading in ("rose", "diverged"):
        table[heading] = [
            f"{some}/{runs}" if some else "–"
            for some, runs in zip(lines[heading], lines["runs"], strict=True)
        ]
    return table.rename_axis("optimizer")


def ablation_table(workloads: Mapping[str, Rows]) -> Frame:
    """Final train loss of each variation over that of ours, by workload."""
    varied = {row.name for row in group("ablation")}
    labels = dict.fromkeys(
        row.label for rows in workloads.values() for row in rows.values() if row.optimizer in varied
    )
    cells = {
        name: {label: _interval(to_ours(label, rows)) for label in labels}
        for name, rows in workloads.items()
    }
    return pd.DataFrame(cells, index=list(labels)).rename_axis("variation")


def final_table(workloads: Mapping[str, Rows], on_test: bool = False) -> Frame:
    """One line per workload: the final train or test loss, or accuracy, of Adam and of ours."""
    shown = _shown()
    labels = dict.fromkeys(
        row.label for rows in workloads.values() for row in rows.values() if row.optimizer in shown
    )

    def cell(row: Row | None) -> str:
        return "–" if row is None else _final(row, row.on_test if on_test else "train_loss")

    cells = {
        name: {label: cell(rows.get(label)) for label in labels} for name, rows in workloads.items()
    }
    return pd.DataFrame.from_dict(cells, orient="index").rename_axis("workload")


def ratio_table(workloads: Mapping[str, Rows], table: Frame) -> Frame:
    """One line per workload: final train loss over the best Adam's, of Adam and of ours."""
    lines = table[table["optimizer"].isin(_shown())]
    cells = lines.assign(
        cell=[
            _AT_EDGE if edge else _interval(found)
            for edge, found in zip(lines["at_edge"], lines["to_adam"], strict=True)
        ]
    ).pivot(index="workload", columns="label", values="cell")
    return cells.reindex([*workloads], columns=dict.fromkeys(lines["label"])).fillna("–")


def _shown() -> set[str]:
    """Names of Adam and of ours."""
    return {REFERENCE, *(row.name for row in group("ours"))}


def workload_table(rows: Rows, table: Frame) -> Frame:
    """One line per optimizer: what it came to on one workload."""
    lines = {}
    for row, (_, line) in zip(rows.values(), table.iterrows(), strict=True):
        name = row.label
        if row.tried > 1:
            name += f" {row.setting.partition(':')[2]}{_EDGE if row.at_edge else ''}"
        lines[name] = {
            "train loss": _final(row, "train_loss"),
            row.on_test.replace("_", " "): _final(row, row.on_test),
            "÷ Adam 1e-3": _interval(line["to_default"]),
            "÷ best Adam": _AT_EDGE if line["at_edge"] else _interval(line["to_adam"]),
            "÷ best": _AT_EDGE if row.at_edge else _interval(line["to_best"]),
            "equal time": _number(line["equal_time"]),
            "time": _number(line["time_to_target"]),
            "s/step": _number(row.seconds),
        }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("optimizer")


def _final(row: Row, measure: str) -> str:
    diverged = f", {row.diverged} of {len(row.seeds)} diverged" if row.diverged else ""
    return _interval(row.final(measure), percent=measure == "test_accuracy") + diverged


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else f"{value:.3g}"


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.0f} %"


def _interval(interval: Interval | None, percent: bool = False) -> str:
    if interval is None or math.isnan(interval.mean):
        return "–"
    mean, low, high = ((f"{100 * x:.1f}" if percent else _number(x)) for x in interval)
    unit = " %" if percent else ""
    return mean + unit if low == high else f"{mean}{unit} [{low}, {high}]"


# The report


def write(
    jobs: Sequence[Mapping[str, Any]], folder: Path, record: Mapping[str, Any], console: Console
) -> None:
    """Write everything into the folder and show the main tables.

    Args:
      jobs: contents of all files.
      folder: of the benchmark.
      record: what all jobs share, and the command line.
      console: where to show the tables.
    """
    workloads = rows_of(jobs)
    table = compared(workloads)
    lines = overall(table)
    won = wins(workloads)
    sentences = _sentences(workloads, jobs)
    facts = {job["workload"]: job for job in jobs}
    results.write_json(
        folder / SUMMARY,
        {
            **record,
            "overall": _plain(lines.rename_axis("label").reset_index()),
            "wins": won.to_dict(orient="index"),
            "scales": scales(workloads),
            "workloads": {
                name: _summary(rows, table[table["workload"] == name], facts[name], jobs)
                for name, rows in workloads.items()
            },
        },
    )
    _draw(workloads, table, facts, folder)
    main = {"Suite": suite_table(lines)}
    if len(won):
        shares = won.map(_share).rename_axis("against")
        main["Share of workloads won, by final train loss"] = shares
    for title, one in main.items():
        console.print(_rich(title, one))
    for sentence in sentences:
        console.print(sentence, highlight=False, soft_wrap=True)
    parts = [f"# Benchmark of self-tuning, profile {record['settings']['profile']}", _READING]
    for title, one in main.items():
        parts += [f"## {title}", one.to_markdown(disable_numparse=True)]
    variations = ablation_table(workloads)
    if len(variations):
        parts += [
            "### Variations: final train loss ÷ that of ours",
            variations.to_markdown(disable_numparse=True),
        ]
    ratios = ratio_table(workloads, table)
    parts += ["### Final train loss ÷ best Adam", ratios.to_markdown(disable_numparse=True)]
    for title, on_test in (("Final train loss", False), ("In the end, on test data", True)):
        finals = final_table(workloads, on_test)
        parts += [f"### {title}", finals.to_markdown(disable_numparse=True)]
    parts += sentences
    if any(best_baseline(rows) for rows in workloads.values()):
        parts.append("![ratios](ratios.png)")
    for name, rows in workloads.items():
        one = workload_table(rows, table[table["workload"] == name])
        parts += [
            f"## {_title(facts[name])}",
            one.to_markdown(disable_numparse=True),
            f"![curves](curves/{name}.png)",
        ]
    text = "\n\n".join(part.strip() for part in parts) + "\n"
    (folder / DOCUMENT).write_text(text, encoding="utf-8")
    console.print(f"Report: {folder / DOCUMENT}", highlight=False, soft_wrap=True)


def _title(job: Mapping[str, Any]) -> str:
    return f"{job['problem']}, batch size {job['batch_size']}, {job['inputs']['steps']} steps"


def _rich(title: str, frame: Frame) -> Table:
    """A table of text for the terminal."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, heading in enumerate((frame.index.name, *frame)):
        table.add_column(str(heading), justify="right" if index else "left", no_wrap=not index)
    for line in frame.itertuples():
        table.add_row(*map(str, line))
    return table


def _sentences(workloads: Mapping[str, Rows], jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What no table says: whether our steps are of the right length, what the sweeps cost."""
    found = []
    multiples = scales(workloads)
    if multiples:
        good = sum(one["ours_is_best_or_within_interval"] for one in multiples.values())
        best = ", ".join(f"{name} × {one['best']:g}" for name, one in multiples.items())
        found.append(
            f"Our step size is the best multiple of itself, or within the noise of it, in {good} "
            f"of {len(multiples)} workloads (best: {best})."
        )
    for row in group("baseline"):
        mine = [job for job in jobs if job["optimizer"] == row.name]
        if mine:
            seconds = sum(job["timing"]["training_seconds"] for job in mine)
            settings = sum(len({row.label(run["setting"]) for run in job["runs"]}) for job in mine)
            found.append(
                f"The sweep of {row.name}: {settings} settings on {len(mine)} workloads, "
                f"{seconds:,.0f} s in all."
            )
    edges = [
        f"{row.label} on {name} ({row.setting.partition(':')[2]})"
        for name, rows in workloads.items()
        for row in rows.values()
        if row.at_edge
    ]
    if edges:
        found.append(
            "At the edge of the sweep of rates, so that the baseline may do better than it seems, "
            f"and no ratio is given: {', '.join(edges)}. Widen LADDER in "
            "experiments/benchmark/suite.py, and repeat the command with another --out."
        )
    below = [
        f"{row.label} on {name}"
        for name, rows in workloads.items()
        for row in rows.values()
        if row.floor and row.loss[:, -1].min() < row.floor
    ]
    if below:
        found.append(
            "Below the floor of the problem, so that there are no ratios: "
            f"{', '.join(below)}. Lower the floor in experiments/registry/problems.py."
        )
    return found


def _draw(
    workloads: Mapping[str, Rows],
    table: Frame,
    facts: Mapping[str, Mapping[str, Any]],
    folder: Path,
) -> None:
    hidden = {row.name for row in group("ablation", "scaled")}
    for name, rows in workloads.items():
        shown = [row for row in rows.values() if row.optimizer not in hidden] or [*rows.values()]
        curves = pd.concat(
            pd.DataFrame(
                {"label": r.label, "step": r.steps, "train_loss": np.median(r.loss, axis=0)}
            )
            for r in shown
        )
        seconds = {row.label: row.seconds for row in shown}
        plots.draw_workload(_title(facts[name]), curves, seconds, folder / "curves" / f"{name}.png")
    if table["to_best"].notna().any():
        wide = table.assign(to_best=means(table["to_best"]))
        ratios = wide.pivot(index="label", columns="workload", values="to_best")
        large = {name: facts[name]["batch_size"] >= suite.LARGE for name in workloads}
        order = list(dict.fromkeys(table["label"]))
        plots.draw_ratios(ratios.loc[order], large, folder / "ratios.png")


def _summary(
    rows: Rows, table: Frame, facts: Mapping[str, Any], jobs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Everything about one workload, for a file."""
    best = best_baseline(rows)
    baselines = {row.name for row in group("baseline")}
    mine = [job for job in jobs if job["workload"] == facts["workload"]]
    return {
        "problem": facts["problem"],
        "batch_size": facts["batch_size"],
        "steps": facts["inputs"]["steps"],
        "floor": next(row.floor for row in rows.values()),
        "best_baseline": best.label if best else None,
        "sweep_seconds": {
            job["optimizer"]: job["timing"]["training_seconds"]
            for job in mine
            if job["optimizer"] in baselines
        },
        "rows": {
            row.label: {
                "setting": row.setting,
                "settings_tried": row.tried,
                "at_edge": row.at_edge,
                "seeds": row.seeds,
                "final": {name: _plain_interval(row.final(name)) for name in row.measures},
                **{name: _plain_interval(value) for name, value in line.items()},
            }
            for row, line in zip(
                rows.values(), _plain(table.drop(columns=["workload", "label"])), strict=True
            )
        },
    }


def _plain(frame: Frame) -> list[dict[str, Any]]:
    rows: Iterable[Any] = frame.to_dict(orient="records")
    return [{str(name): _plain_interval(value) for name, value in row.items()} for row in rows]


def _plain_interval(value: Any) -> Any:
    return value._asdict() if isinstance(value, Interval) else value
