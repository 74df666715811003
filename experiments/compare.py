"""`mekax compare`: optimizers side by side, with the same start, data order and budget.

What the user typed is checked before anything heavy is imported.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import registry, results
from .errors import UsageError, expect_same, output_folder, positive_integer, positive_number
from .registry import Optimizer, Setting

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from .plots import Shown
    from .problem import Problem
    from .progress import Display
    from .results import Frame

DEFAULT_PROBLEMS = ("digits",)
DEFAULT_OPTIMIZERS = ("meka", "adameka", "adam:1e-3", "sgd:0.1")
REPORT = "results.json"  # what all jobs of a comparison share
CHECKPOINTS = "checkpoint"
SCHEMA = 2  # of the report
_TITLES = {"test_loss": "test loss", "test_accuracy": "test accuracy"}


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
      problems: names in the registry.
      optimizers: with their settings, by label.
      out: existing folder for results and figures.
      epochs: passes over the data, or None for the problem's default.
      seconds: training time of each run, compilation and evaluation apart, instead of `epochs`.
      batch_size: examples per step, or None for the problem's default.
      seeds: number of repetitions; seed k is the same initial parameters and data order for all.
      tune: whether to sweep the learning rates of the baselines.
      data_dir: folder of prepared datasets, or None for the default places.
      earlier: report of the comparison to continue; or None to begin.
    """

    problems: tuple[str, ...]
    optimizers: dict[str, tuple[Optimizer, Setting]]
    out: Path
    epochs: int | None
    seconds: float | None
    batch_size: int | None
    seeds: int
    tune: bool
    data_dir: Path | None
    earlier: dict[str, Any] | None = None

    def settings(self) -> dict[str, Any]:
        """What a comparison that is continued must share with its beginning."""
        names = ("problems", "epochs", "seconds", "batch_size", "seeds", "tune")
        shared = {name: getattr(self, name) for name in names}
        return results.plain({**shared, "optimizers": list(self.optimizers)})

    def grids(self) -> dict[str, list[str]]:
        """Labels of the settings to sweep, by baseline; they include those that were asked for."""
        grids: dict[str, list[str]] = {}
        if self.tune:
            for label, (optimizer, _) in self.all_runs().items():
                if optimizer.group == "baseline":
                    grids.setdefault(optimizer.name, []).append(label)
        return grids

    def all_runs(self) -> dict[str, tuple[Optimizer, Setting]]:
        """What was asked for, and with `tune` the grids of the baselines among it."""
        swept = {
            optimizer.label(setting): (optimizer, setting)
            for optimizer, _ in self.optimizers.values()
            for setting in optimizer.settings
            if self.tune and setting.get("schedule") == 0
        }
        return {**self.optimizers, **swept}


def check(
    problems: Sequence[str] = (),
    optimizers: Sequence[str] = (),
    *,
    epochs: str | None = None,
    seconds: str | None = None,
    batch_size: str | None = None,
    seeds: str = "1",
    tune: bool = False,
    data_dir: str | None = None,
    out: str | None = None,
    resume: bool = False,
) -> Comparison:
    """Turn what the user typed into a comparison; creates the output folder last of all.

    Raises:
      UsageError: for the first thing that cannot work.
    """
    names = tuple(dict.fromkeys(registry.adopt(text) for text in problems or DEFAULT_PROBLEMS))
    entries = [registry.find(name) for name in names]
    parsed = registry.parse_all(optimizers or DEFAULT_OPTIMIZERS)
    if epochs is not None and seconds is not None:
        raise UsageError(
            f"expected a budget in epochs or in seconds, got both --epochs {epochs} and "
            f"--seconds {seconds}. Leave one of them out."
        )
    if tune and not any(optimizer.group == "baseline" for optimizer, _ in parsed.values()):
        raise UsageError(
            "expected at least one optimizer with a learning rate to tune, got "
            f"{' '.join(parsed)}. Add for example adam to --optimizers, or leave --tune out."
        )
    size = None if batch_size is None else positive_integer("--batch-size", batch_size)
    n_epochs = None if epochs is None else positive_integer("--epochs", epochs)
    n_seconds = None if seconds is None else positive_number("--seconds", seconds)
    n_seeds = positive_integer("--seeds", seeds)
    folder = None if data_dir is None else Path(data_dir)
    for name, entry in zip(names, entries, strict=True):
        examples = entry.training_examples(folder)
        if size is not None and size > examples:
            raise UsageError(
                f"expected --batch-size to be at most the {examples:,} training examples of "
                f"{name}, got {size}. Choose a smaller one."
            )
    if resume and out is None:
        raise UsageError(
            "expected --out with --resume, got no folder. Name the one that the interrupted "
            "comparison wrote to."
        )
    place = output_folder(
        out or f"results/{'+'.join(names)}-{datetime.now():%Y%m%d-%H%M%S}",
        *(() if resume else (REPORT,)),
        advice="Add --resume to continue that comparison, or choose another folder.",
    )
    plan = Comparison(names, parsed, place, n_epochs, n_seconds, size, n_seeds, tune, folder)
    return dataclasses.replace(plan, earlier=_earlier(plan) if resume else None)


def _earlier(plan: Comparison) -> dict[str, Any] | None:
    """The report in the output folder, or None if there is none.

    Raises:
      UsageError: if a file cannot be read, or it was made with other settings or versions.
    """
    path = plan.out / REPORT
    if not path.exists():
        return None
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if report["schema"] != SCHEMA:
            raise ValueError(f"schema {report['schema']!r} instead of {SCHEMA}")
        for name in ("settings", "versions", "device", "problems"):
            if not isinstance(report[name], dict):
                raise TypeError(f"{name} is not an object")
        command = shlex.join(["mekax", *map(str, report["command"][1:])])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    for damaged in results.jobs(plan.out)[1]:
        raise _damaged(damaged, "it is cut off, or not what was written")
    advice = (
        f"Repeat the command that began it with --resume added ({command}), or choose another "
        f"folder."
    )
    expect_same(path, "settings", report["settings"], plan.settings(), advice)
    advice = "Install the recorded ones, or compare anew in another folder."
    expect_same(path, "versions", report["versions"], results.versions(), advice)
    return report


def _damaged(path: Path, reason: str) -> UsageError:
    return UsageError(
        f"expected {path} to be the record of a comparison, but it cannot be understood "
        f"({' '.join(reason.split())}). It has been left as it is: put a whole copy in its place, "
        f"or compare anew in another folder."
    )


def compare(plan: Comparison, console: Console, command: Sequence[str] = ()) -> bool:
    """Train everything, keeping each run as it ends; then show tables and draw figures.

    Args:
      plan: what `check` returned.
      console: where to show progress and tables.
      command: the command line, for the record.

    Returns:
      Whether all runs were done; False after an interrupt, with what there is written and shown.
    """
    from .progress import display

    report = _report(plan, command)
    if plan.earlier:
        done = sum(_is_done(plan, name, *run) for name in plan.problems for run in _runs(plan))
        console.print(f"Continuing; runs that are done: {done}.", highlight=False)
    try:
        results.write_json(plan.out / REPORT, report)
        with display(console) as shown:
            for name in plan.problems:
                _run_problem(plan, name, report, shown)
        report["status"] = "finished"
    except KeyboardInterrupt:
        report["status"] = "interrupted"
        console.print(
            f"Interrupted: keeping what is done. To continue, repeat the command with "
            f"--out {plan.out} --resume.",
            highlight=False,
            soft_wrap=True,
        )
    except BaseException:
        report["status"] = "failed"
        raise
    finally:
        results.write_json(plan.out / REPORT, report)
    _show(plan, report, console)
    return report["status"] == "finished"


def _report(plan: Comparison, command: Sequence[str]) -> dict[str, Any]:
    """What is recorded besides the runs; a continued comparison keeps what was."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    report = {
        "schema": SCHEMA,
        "command": list(command) or sys.argv,
        "started": now,
        "resumed": [],
        "status": "running",
        "settings": plan.settings(),
        "versions": results.versions(),
        "device": results.device(),
        "problems": {},
    }
    earlier = plan.earlier
    if earlier is None:
        return report
    advice = "Continue on the recorded one, or compare anew in another folder."
    expect_same(plan.out / REPORT, "device", earlier["device"], report["device"], advice)
    kept = {name: earlier[name] for name in ("command", "started", "problems")}
    return {**report, **kept, "resumed": [*earlier.get("resumed", []), now]}


def _runs(plan: Comparison) -> list[tuple[str, int]]:
    """Labels and seeds, seed by seed, so that an early end leaves all optimizers with some."""
    return [(label, seed) for seed in range(plan.seeds) for label in plan.all_runs()]


def _file_name(label: str, seed: int) -> str:
    return f"{re.sub(r'[^A-Za-z0-9.+_-]+', '-', label)}-seed-{seed}"


def _job_file(plan: Comparison, name: str, label: str, seed: int) -> Path:
    return plan.out / results.JOBS / name / f"{_file_name(label, seed)}.json"


def _is_done(plan: Comparison, name: str, label: str, seed: int) -> bool:
    job = results.read_job(_job_file(plan, name, label, seed))
    return job is not None and job["runs"][0]["status"] != "interrupted"


def _run_problem(plan: Comparison, name: str, report: dict[str, Any], shown: Display) -> None:
    """Train what is not done yet, one run after the other."""
    from .problem import Source

    todo = [run for run in _runs(plan) if not _is_done(plan, name, *run)]
    if not todo:
        return
    shown.note(f"{name}: loading")
    problem = registry.load(name, Source(plan.data_dir, shown.note))
    facts = _facts(plan, name, problem)
    recorded = report["problems"].setdefault(name, facts)
    advice = "Give the data that it began with, or compare anew in another folder."
    expect_same(plan.out / REPORT, f"problem {name}", recorded, facts, advice)
    results.write_json(plan.out / REPORT, report)
    named = {o.name: _as_deployed(o) for o, _ in plan.all_runs().values()}
    for label, seed in todo:
        optimizer, setting = plan.all_runs()[label]
        _train(plan, problem, named[optimizer.name], setting, label, seed, shown)


def _as_deployed(optimizer: Optimizer) -> Optimizer:
    """Evaluated where it says: ours at the average that they keep, others at the last iterate."""
    from ..optimizers import eval_params

    place = optimizer.eval_params or (lambda: eval_params)
    return dataclasses.replace(optimizer, averaged=False, eval_params=place)


def _facts(plan: Comparison, name: str, problem: Problem) -> dict[str, Any]:
    import jax

    shapes = jax.eval_shape(problem.init, jax.random.key(0))
    batch_size = plan.batch_size or min(problem.batch_size, problem.examples)
    return {
        "description": registry.find(name).description,
        "examples": problem.examples,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(shapes)),
        "batch_size": batch_size,
        "steps_per_epoch": problem.examples // batch_size,
        "steps": None if plan.seconds else eval_steps(plan, problem, batch_size)[-1],
    }


def eval_steps(plan: Comparison, problem: Problem, batch_size: int) -> tuple[int, ...]:
    """Evaluate at the beginning, and within whole epochs so that some are at the epochs' ends."""
    epochs, per_epoch = plan.epochs or problem.epochs, problem.examples // batch_size
    parts = min(-(-problem.evaluations // epochs), per_epoch)
    within = [round(part * per_epoch / parts) for part in range(1, parts + 1)]
    return (0, *(epoch * per_epoch + step for epoch in range(epochs) for step in within))


def _train(
    plan: Comparison,
    problem: Problem,
    optimizer: Optimizer,
    setting: Setting,
    label: str,
    seed: int,
    shown: Display,
) -> None:
    """One run, and the file of it."""
    from .progress import outcome
    from .records import Run
    from .train import InterruptedTraining, train

    name, title = problem.name, f"{problem.name} · {label} · seed {seed}"
    batch_size = plan.batch_size or min(problem.batch_size, problem.examples)
    steps = eval_steps(plan, problem, batch_size)
    checkpoint = plan.out / CHECKPOINTS / f"{name}-{_file_name(label, seed)}"
    if not plan.earlier:  # left by a comparison whose results are gone
        shutil.rmtree(checkpoint, ignore_errors=True)
    shown.note(f"{name} · {optimizer.name}: compiling")
    path = _job_file(plan, name, label, seed)
    meta = {"workload": name, "problem": name, "batch_size": batch_size}
    try:
        records = train(
            problem,
            optimizer,
            [Run(setting, seed)],
            steps=steps[-1],
            batch_size=batch_size,
            evaluations=problem.evaluations if plan.seconds else steps,
            seconds=plan.seconds,
            per_step=True,
            progress=lambda training: shown.update(title, training),
            checkpoint=checkpoint,
            report=shown.say,
        )
    except InterruptedTraining as stopped:
        results.write(path, stopped.records, meta, per_step=True)
        raise
    results.write(path, records, meta, per_step=True)
    _remove_if_empty(checkpoint.parent)
    shown.say(outcome(title, records))
    if problem.plot and records.status == ("finished",) and not seed and label in plan.optimizers:
        file = f"learned-{label.replace(':', '-')}.png"
        folder = _figures(plan, name)
        folder.mkdir(parents=True, exist_ok=True)
        problem.plot(records.params[0], folder / file)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _figures(plan: Comparison, name: str) -> Path:
    """Where the figures of a problem go."""
    return plan.out / name if len(plan.problems) > 1 else plan.out


def _show(plan: Comparison, report: dict[str, Any], console: Console) -> None:
    """Tables and figures from the files alone, so that they show what the files hold."""
    from . import plots

    report["tuning"] = {}
    for name in plan.problems:
        files = [_job_file(plan, name, *run) for run in _runs(plan)]
        jobs = [job for job in map(results.read_job, files) if job and job["evaluations"]]
        if not jobs:
            continue
        rows = {label: _jobs_of(jobs, label) for label in plan.optimizers}
        sweeps = [
            sweep
            for optimizer, labels in plan.grids().items()
            if (sweep := _sweep(optimizer, labels, jobs, plan.seeds))
        ]
        for sweep in sweeps:
            rate = float(sweep["best"].partition(":")[2])
            title = f"{sweep['optimizer']} best of {len(sweep['learning_rates'])}: {rate:g}"
            rows[title] = _jobs_of(jobs, sweep["best"])
        rows = {label: mine for label, mine in rows.items() if mine}
        report["tuning"][name] = sweeps
        console.print(summary_table(name, rows))
        for sweep in sweeps:
            console.print(_sweep_line(sweep), highlight=False)
        shown = [_shown(label, mine) for label, mine in rows.items()]
        plots.draw_comparison(name, shown, _figures(plan, name))
    results.write_json(plan.out / REPORT, report)
    console.print(f"Results and figures: {plan.out}", highlight=False, soft_wrap=True)


def _jobs_of(jobs: Sequence[dict[str, Any]], label: str) -> list[dict[str, Any]]:
    """The runs of one label that ended by themselves; if there are none, interrupted ones."""
    mine = [job for job in jobs if _label(job) == label]
    ended = [job for job in mine if job["runs"][0]["status"] != "interrupted"]
    return ended or mine


def _label(job: dict[str, Any]) -> str:
    return registry.find_optimizer(job["optimizer"]).label(job["runs"][0]["setting"])


def _shown(label: str, jobs: list[dict[str, Any]]) -> Shown:
    from .plots import Shown

    frames = results.table(jobs), results.table(jobs, "steps")
    return Shown(label, jobs[0]["optimizer"], *frames)


def _sweep(
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
    runs = [job["runs"][0] for job in jobs]
    good = last[last["train_loss"] < float("inf")]
    diverged = sum(run["status"] == "diverged" for run in runs)
    loss = _interval(good["train_loss"]) if len(good) else "diverged"
    if diverged and len(good):
        loss += f", {diverged} of {len(runs)} diverged"
    total = sum(run["seconds"] for run in runs)
    mean_seconds = total / len(runs)
    speed = sum(run["steps"] for run in runs) / total if total else float("nan")
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
