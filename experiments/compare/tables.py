"""Tables and figures of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import registry, results
from .plan import REPORT, Comparison, figures, job_file, runs

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ..plots import Shown
    from ..results import Frame

_TITLES = {"test_loss": "test loss", "test_accuracy": "test accuracy"}


def show(plan: Comparison, report: dict[str, Any], console: Console) -> None:
    """Tables and figures from the files alone, so that they show what the files hold."""
    from .. import plots

    report["tuning"] = {}
    for name in plan.problems:
        files = [job_file(plan, name, *run) for run in runs(plan)]
        jobs = [job for job in map(results.read_job, files) if job and job["evaluations"]]
        if not jobs:
            continue
        rows = {label: jobs_of(jobs, label) for label in plan.optimizers}
        sweeps = [
            sweep
            for optimizer, labels in plan.grids().items()
            if (sweep := sweep_result(optimizer, labels, jobs, plan.seeds))
        ]
        for sweep in sweeps:
            rate = float(sweep["best"].partition(":")[2])
            title = f"{sweep['optimizer']} best of {len(sweep['learning_rates'])}: {rate:g}"
            rows[title] = jobs_of(jobs, sweep["best"])
        rows = {label: mine for label, mine in rows.items() if mine}
        report["tuning"][name] = sweeps
        console.print(summary_table(name, rows))
        for sweep in sweeps:
            console.print(_sweep_line(sweep), highlight=False)
        shown = [to_draw(label, mine) for label, mine in rows.items()]
        plots.draw_comparison(name, shown, figures(plan, name))
    results.write_json(plan.out / REPORT, report)
    console.print(f"Results and figures: {plan.out}", highlight=False, soft_wrap=True)


def jobs_of(jobs: Sequence[dict[str, Any]], label: str) -> list[dict[str, Any]]:
    """The runs of one label that ended by themselves; if there are none, interrupted ones."""
    mine = [job for job in jobs if _label(job) == label]
    ended = [job for job in mine if job["runs"][0]["status"] != "interrupted"]
    return ended or mine


def _label(job: dict[str, Any]) -> str:
    return registry.find_optimizer(job["optimizer"]).label(job["runs"][0]["setting"])


def to_draw(label: str, jobs: list[dict[str, Any]]) -> Shown:
    from ..plots import Shown

    frames = results.table(jobs), results.table(jobs, "steps")
    return Shown(label, jobs[0]["optimizer"], *frames)


def sweep_result(
    optimizer: str, labels: Sequence[str], jobs: Sequence[dict[str, Any]], seeds: int
) -> dict[str, Any] | None:
    """What a grid came to: the settings of which all seeds ended, and the best of them."""
    mine = [job for job in jobs if _label(job) in labels]
    ended = [job for job in mine if job["runs"][0]["status"] != "interrupted"]
    if not ended:
        return None
    last = results.final(results.table(ended)).groupby("label", sort=False)
    means = last["train_loss"].mean()[last.size() == seeds]
    if means.empty:
        return None
    order = [label for label in labels if label in means]
    return {
        "optimizer": optimizer,
        "learning_rates": [float(label.partition(":")[2]) for label in order],
        "train_losses": [float(means[label]) for label in order],
        "best": str(means[order].idxmin()),
        "seconds": sum(job["runs"][0]["seconds"] for job in mine),
    }


def _sweep_line(sweep: dict[str, Any]) -> str:
    """A line about what a sweep found and cost."""
    rates, best = sweep["learning_rates"], float(sweep["best"].partition(":")[2])
    tried = ", ".join(
        f"{rate:g}: {loss:.4g}" for rate, loss in zip(rates, sweep["train_losses"], strict=True)
    )
    edge = ", at the end of the grid" if best in (min(rates), max(rates)) else ""
    return (
        f"{sweep['optimizer']}: best of {len(rates)} learning rates is {best:g}{edge}; "
        f"the sweep took {sweep['seconds']:.1f} s of training (final train losses {tried})"
    )


def summary_table(problem: str, rows: dict[str, list[dict[str, Any]]]) -> Table:
    """One row per optimizer; with several seeds, means with 95 % bootstrap intervals.

    Args:
      problem: name for the title.
      rows: jobs of one run each, by label.
    """
    from rich.table import Table

    seeds = max(len(jobs) for jobs in rows.values())
    over = f", mean of {seeds} seeds [95 % bootstrap interval]" if seeds > 1 else ""
    measured = next(iter(rows.values()))[0]["evaluations"]
    test = "test_accuracy" if "test_accuracy" in measured else "test_loss"
    result = Table(title=f"{problem}{over}", title_justify="left")
    result.add_column("optimizer", no_wrap=True)
    headings = ["train loss", _TITLES[test], "seconds", "step size p5–p95", "steps/s", "compile s"]
    for heading in headings:
        result.add_column(heading, justify="right", no_wrap=True)
    for label, jobs in rows.items():
        interrupted = any(job["runs"][0]["status"] == "interrupted" for job in jobs)
        result.add_row(label + (" (interrupted)" if interrupted else ""), *_cells(jobs, test))
    return result


def _cells(jobs: list[dict[str, Any]], test: str) -> list[str]:
    last, steps = results.final(results.table(jobs)), results.table(jobs, "steps")
    trainings = [job["runs"][0] for job in jobs]
    good = last[last["train_loss"] < float("inf")]
    diverged = sum(run["status"] == "diverged" for run in trainings)
    loss = _interval(good["train_loss"]) if len(good) else "diverged"
    if diverged and len(good):
        loss += f", {diverged} of {len(trainings)} diverged"
    total = sum(run["seconds"] for run in trainings)
    mean_seconds = total / len(trainings)
    speed = sum(run["steps"] for run in trainings) / total if total else float("nan")
    sizes: Any = steps["step_size"].dropna() if "step_size" in steps else ()
    return [
        loss,
        _interval(good[test], percent=test == "test_accuracy"),
        f"{mean_seconds:.2f}" if mean_seconds < 10 else f"{mean_seconds:.1f}",
        _range(*sizes.quantile([0.05, 0.95])) if len(sizes) else "–",
        f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}",
        f"{sum(job['compile_seconds'] for job in jobs):.1f}",
    ]


def _interval(values: Frame, percent: bool = False) -> str:
    if values.empty:
        return "–"
    interval = results.bootstrap(values.to_numpy())
    numbers = [f"{100 * x:.2f}" if percent else f"{x:.4g}" for x in interval]
    unit = " %" if percent else ""
    if interval.low == interval.high:
        return numbers[0] + unit
    return f"{numbers[0]}{unit} [{numbers[1]}, {numbers[2]}]"


def _range(low: float, high: float) -> str:
    ends = f"{low:.2g}", f"{high:.2g}"
    return ends[0] if ends[0] == ends[1] else "–".join(ends)
