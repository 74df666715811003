"""What a benchmark comes to: a summary for programs, a document and figures for people.

Rows are optimizers as a user would meet them: a baseline at its default and at the best of its
grid, what others have proposed, ours at the last iterate and at the average. Ratios are geometric
means over paired seeds, with bootstrap intervals.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from . import plots, results, suite
from .registry import OPTIMIZERS, PROBLEMS, group
from .results import Frame, Interval, bootstrap, ratio
from .suite import REFERENCE

SUMMARY, DOCUMENT = "summary.json", "benchmark.md"
DEFAULT_ADAM, BEST_ADAM = f"{REFERENCE} default", f"{REFERENCE} best"
_NEAR = 1.1  # times the best Adam's loss: as good for most purposes
_LEAST_ERROR = 1e-3  # of a part of wrong answers: less is a matter of a few examples
_TINY = 1e-12
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
al. 2023, arXiv 2306.07179).
"""


@dataclass(frozen=True)
class Row:
    """One optimizer on one workload.

    Attributes:
      workload: name.
      label: in tables.
      optimizer: name in the registry.
      setting: label of the setting it was trained with.
      at_edge: whether that is at the edge of what was tried.
      seeds: in order.
      steps: after which it was evaluated, shape (evaluations,).
      measures: `train_loss`, …, each of shape (seeds, evaluations); infinite if not finite.
      seconds: per step, relative to Adam's.
      tried: settings that were trained to find this one.
      floor: of the problem's loss.
    """

    workload: str
    label: str
    optimizer: str
    setting: str
    at_edge: bool
    seeds: tuple[int, ...]
    steps: np.ndarray
    measures: dict[str, np.ndarray]
    seconds: float
    tried: int
    floor: float

    @property
    def loss(self) -> np.ndarray:
        """Train loss, shape (seeds, evaluations)."""
        return self.measures["train_loss"]

    @property
    def excess(self) -> np.ndarray:
        """Mean train loss over its floor, shape (evaluations,)."""
        return self.loss.mean(axis=0) - self.floor

    @property
    def diverged(self) -> int:
        """Number of seeds whose loss is not finite at the end."""
        return int((~np.isfinite(self.loss[:, -1])).sum())

    @property
    def on_test(self) -> str:
        """What counts on test data."""
        return "test_accuracy" if "test_accuracy" in self.measures else "test_loss"

    def final(self, measure: str = "train_loss") -> Interval | None:
        """Mean over the seeds that did not diverge; None if all did."""
        values = self.measures[measure][:, -1]
        finite = values[np.isfinite(values)]
        return bootstrap(finite) if finite.size else None

    def by_seed(self, test: bool = False) -> dict[int, float]:
        """The final train loss, or on test data the part of wrong answers or else the loss.

        Losses are over their floor.
        """
        values = self.measures[self.on_test if test else "train_loss"][:, -1]
        if test and self.on_test == "test_accuracy":
            values = np.maximum(np.where(np.isfinite(values), 1 - values, 1), _LEAST_ERROR)
        else:
            values = values - self.floor
        return dict(zip(self.seeds, values.tolist(), strict=True))


Rows = dict[str, Row]  # of one workload, by label


def rows_of(jobs: Sequence[Mapping[str, Any]]) -> dict[str, Rows]:
    """The rows of each workload, in the order of the jobs."""
    found: dict[str, Rows] = {}
    for job in jobs:
        rows = found.setdefault(job["workload"], {})
        rows |= {row.label: row for row in _rows_of_job(job)}
    return found


def _rows_of_job(job: Mapping[str, Any]) -> list[Row]:
    optimizer, table = OPTIMIZERS[job["optimizer"]], results.table([job])
    tried = {optimizer.label(run["setting"]): run["setting"] for run in job["runs"]}
    timing = job["timing"]
    # Adam's own is 1 but for noise.
    seconds = timing["step_seconds"] / timing["adam_step_seconds"]
    seconds = 1.0 if optimizer.name == REFERENCE else seconds
    rows = []

    def add(name: str, setting: str, iterate: str, count: int = 1) -> None:
        mine = table[(table["label"] == setting) & (table["iterate"] == iterate)]
        columns = [c for c in mine if c.endswith(("_loss", "_accuracy"))]
        wide = {
            c: mine.pivot(index="seed", columns="step", values=c).astype(float) for c in columns
        }
        loss = wide["train_loss"]
        rows.append(
            Row(
                workload=job["workload"],
                label=name if iterate == "last" else f"{name}+{iterate}",
                optimizer=optimizer.name,
                setting=setting,
                at_edge=count > 1 and suite.is_at_edge([*tried.values()], tried[setting]),
                seeds=tuple(int(seed) for seed in loss.index),
                steps=loss.columns.to_numpy(float),
                measures={c: w.where(np.isfinite(w), np.inf).to_numpy() for c, w in wide.items()},
                seconds=seconds,
                tried=count,
                floor=PROBLEMS[job["problem"]].floor if job["problem"] in PROBLEMS else 0.0,
            )
        )

    iterates = list(table["iterate"].unique())
    if optimizer.group == "baseline":
        for iterate in iterates:
            add(f"{optimizer.name} default", optimizer.label(optimizer.default), iterate)
        for iterate in iterates:
            best = results.best_setting(table, iterate)
            add(f"{optimizer.name} best", best, iterate, len(tried))
        return rows
    for label in tried:
        for iterate in iterates:
            add(label, label, iterate)
    return rows


def best_of(rows: Rows, *baselines: str) -> Row | None:
    """The best of the sweeps of some baselines: lowest mean final train loss, last or averaged."""
    labels = [f"{name} best{iterate}" for name in baselines for iterate in ("", "+average")]
    best = [rows[label] for label in labels if label in rows]
    return min(best, key=lambda row: row.loss[:, -1].mean(), default=None)


def best_baseline(rows: Rows) -> Row | None:
    """The best of the sweeps of all baselines."""
    return best_of(rows, *(row.name for row in group("baseline")))


def against(row: Row, rows: Rows) -> dict[str, Any]:
    """Ratios to the references of the workload, None where there is no such reference.

    There is none either, and `at_edge` says so, where the best of a sweep is at its edge.
    """
    default, adam, best = rows.get(DEFAULT_ADAM), best_of(rows, REFERENCE), best_baseline(rows)
    at_edge = row.at_edge or bool(adam and adam.at_edge)
    adam = None if at_edge else adam
    best = None if row.at_edge or (best and best.at_edge) else best

    def to(other: Row | None, test: bool = False) -> Interval | None:
        return None if other is None else ratio(row.by_seed(test), other.by_seed(test))

    steps = time = with_sweep = None
    if adam:
        target = float(adam.excess[-1])
        steps = steps_to(row, target) if math.isfinite(target) else math.nan
        time = steps * row.seconds / (steps_to(adam, target) * adam.seconds)
        # Who has swept Adam has trained all its settings, and who sweeps this row all of these.
        with_sweep = time * row.tried / adam.tried
    return {
        "at_edge": at_edge,
        "to_default": to(default),
        "to_adam": to(adam),
        "to_best": to(best),
        "test_to_adam": to(adam, test=True),
        "equal_time": equal_time_ratio(row, adam) if adam else None,
        "steps_to_target": steps,
        "time_to_target": time,
        "time_with_sweep": with_sweep,
    }


def steps_to(row: Row, target: float) -> float:
    """Steps until the mean train loss, over its floor, is at most the target; infinite if never.

    Between two evaluations the logarithm of the loss is taken for linear, or the loss if it has
    none.
    """
    losses = row.excess
    reached = np.flatnonzero(losses <= target)
    if not reached.size:
        return math.inf
    last = int(reached[0])
    if last == 0 or not math.isfinite(losses[last - 1]):
        return float(row.steps[last])
    ends = np.array([losses[last - 1], target, losses[last]])
    before, wanted, after = np.log(ends) if ends.min() > 0 else ends
    part = (before - wanted) / (before - after)
    return float(row.steps[last - 1] + part * (row.steps[last] - row.steps[last - 1]))


def equal_time_ratio(row: Row, reference: Row) -> float:
    """Train loss at the time when the reference is at its end, relative to the reference's.

    Both over their floor. Whoever is faster than the reference stops where its steps end. Not a
    number if a loss is below the floor.
    """
    losses, final = row.excess, reference.excess[-1]
    if losses.min() < 0 or final < 0:
        return math.nan
    losses, final = np.log(np.maximum(losses, _TINY)), math.log(max(final, _TINY))
    step = reference.steps[-1] * reference.seconds / row.seconds
    if not np.isfinite(losses).all():
        return math.inf
    return math.exp(float(np.interp(step, row.steps, losses)) - final)


def compared(workloads: Mapping[str, Rows]) -> Frame:
    """One line per workload and row, with what `against` says; intervals as they are."""
    return pd.DataFrame(
        [
            {
                "workload": name,
                "label": row.label,
                "optimizer": row.optimizer,
                "seconds": row.seconds,
                "diverged": row.diverged,
                "runs": len(row.seeds),
                **against(row, rows),
            }
            for name, rows in workloads.items()
            for row in rows.values()
        ]
    )


def overall(table: Frame) -> Frame:
    """One line per label over its workloads; needs what `compared` returns."""
    scores = {}
    for column, name in (("steps_to_target", "steps"), ("time_to_target", "seconds")):
        times = table.pivot(index="workload", columns="label", values=column).astype(float)
        scores[name] = results.profile_scores(times)
    lines = {}
    for label, mine in table.groupby("label", sort=False):
        to_adam = _means(mine["to_adam"])
        known = to_adam.dropna()
        mean = None
        if len(known):
            mean = _geometric(known.to_numpy())
        worst = mine["workload"][known.idxmax()] if len(known) else None
        lines[label] = {
            "workloads": len(mine),
            "compared": len(known),
            "at_edge": int(mine["at_edge"].sum()),
            "to_default": _median(mine["to_default"]),
            "to_adam": _median(mine["to_adam"]),
            "mean": mean,
            "worst": known.max() if len(known) else math.nan,
            "worst_workload": worst,
            "to_best": _median(mine["to_best"]),
            "near_adam": (known <= _NEAR).mean() if len(known) else math.nan,
            "test_to_adam": _median(mine["test_to_adam"]),
            "equal_time": _median(mine["equal_time"]),
            "time_to_target": _median(mine["time_to_target"]),
            "time_with_sweep": _median(mine["time_with_sweep"]),
            "score_steps": scores["steps"].get(label, math.nan),
            "score_seconds": scores["seconds"].get(label, math.nan),
            "seconds": mine["seconds"].median(),
            "diverged": int(mine["diverged"].sum()),
            "runs": int(mine["runs"].sum()),
        }
    return pd.DataFrame.from_dict(lines, orient="index")


def _means(column: Frame) -> Frame:
    """Numbers of a column of intervals, numbers and None."""
    return column.map(lambda v: v.mean if isinstance(v, Interval) else v).astype(float)


def _geometric(ratios: np.ndarray) -> Interval:
    """Geometric mean; without an interval where a ratio is 0 or infinite, as of what diverged."""
    if np.isfinite(ratios).all() and (ratios > 0).all():
        return bootstrap(ratios, geometric=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return Interval(*[float(np.exp(np.log(ratios).mean()))] * 3)


def _median(column: Frame) -> float:
    """The upper of the two middle ones: their mean is of no use where one is infinite."""
    known = sorted(_means(column).dropna())
    return known[len(known) // 2] if known else math.nan


def wins(workloads: Mapping[str, Rows]) -> Frame:
    """Share of workloads in which ours end with a lower train loss than each of the others."""
    ours = [row.name for row in group("ours", "direction")]
    found: dict[str, dict[str, float]] = {}
    for label in dict.fromkeys(label for rows in workloads.values() for label in rows):
        if label.partition("+")[0] not in ours:
            continue
        for other in group("learning_rate_free"):
            both = [rows for rows in workloads.values() if label in rows and other.name in rows]
            ratios = [ratio(r[label].by_seed(), r[other.name].by_seed()).mean for r in both]
            known = [one < 1 for one in ratios if not math.isnan(one)]
            if both:
                found.setdefault(label, {})[other.name] = (
                    float(np.mean(known)) if known else math.nan
                )
    return pd.DataFrame.from_dict(found, orient="index")


def to_ours(label: str, rows: Rows) -> Interval | None:
    """Compare a variation with what it varies, `meka` or `adameka`, at the same iterate."""
    ours = "meka" if label.startswith("meka-") else "adameka"
    row, reference = rows.get(label), rows.get(ours + "".join(label.partition("+")[1:]))
    return ratio(row.by_seed(), reference.by_seed()) if row and reference else None


def scales(workloads: Mapping[str, Rows]) -> dict[str, dict[str, Any]]:
    """For each workload the best multiple of our step, and whether ours is as good within noise."""
    found = {}
    for name, rows in workloads.items():
        scaled = {
            setting["scale"]: rows.get(row.label(setting))
            for row in group("scaled")
            for setting in row.settings
        }
        known = {s: row for s, row in {**scaled, 1.0: rows.get("adameka")}.items() if row}
        if 1.0 not in known or len(known) < 2:
            continue
        ratios = {s: ratio(known[1.0].by_seed(), row.by_seed()) for s, row in known.items()}
        best = max(ratios, key=lambda scale: ratios[scale].mean)
        found[name] = {
            "best": best,
            "loss_of_ours_to_best": ratios[best]._asdict(),
            "ours_is_best_or_within_interval": best == 1.0 or ratios[best].low <= 1,
        }
    return found


# Tables


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
    table["diverged"] = [
        f"{diverged}/{runs}" if diverged else "–"
        for diverged, runs in zip(lines["diverged"], lines["runs"], strict=True)
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
            f"and no ratio is given: {', '.join(edges)}. Widen LADDER in experiments/suite.py, and "
            "repeat the command with another --out."
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
            f"{', '.join(below)}. Lower the floor in experiments/registry.py."
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
        wide = table.assign(to_best=_means(table["to_best"]))
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
