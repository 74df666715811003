"""Train everything, keeping each run as it ends; then show tables and draw figures."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import registry, results
from ..errors import expect_same
from ..registry import Optimizer, Setting
from . import tables
from .plan import REPORT, SCHEMA, Comparison, figures, file_name, is_done, job_file, runs

if TYPE_CHECKING:
    from rich.console import Console

    from ..problem import Problem
    from ..progress import Display

CHECKPOINTS = "checkpoint"


def compare(plan: Comparison, console: Console, command: Sequence[str] = ()) -> bool:
    """Train everything, keeping each run as it ends; then show tables and draw figures.

    Args:
      plan: what `check` returned.
      console: where to show progress and tables.
      command: the command line, for the record.

    Returns:
      Whether all runs were done; False after an interrupt, with what there is written and shown.
    """
    from ..progress import display

    report = _report(plan, command)
    if plan.earlier:
        done = sum(is_done(plan, name, *run) for name in plan.problems for run in runs(plan))
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
    tables.show(plan, report, console)
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


def _run_problem(plan: Comparison, name: str, report: dict[str, Any], shown: Display) -> None:
    """Train what is not done yet, one run after the other."""
    from ..problem import Source
    from ..train import as_deployed

    todo = [run for run in runs(plan) if not is_done(plan, name, *run)]
    if not todo:
        return
    shown.note(f"{name}: loading")
    problem = registry.load(name, Source(plan.data_dir, shown.note))
    facts = _facts(plan, name, problem)
    recorded = report["problems"].setdefault(name, facts)
    advice = "Give the data that it began with, or compare anew in another folder."
    expect_same(plan.out / REPORT, f"problem {name}", recorded, facts, advice)
    results.write_json(plan.out / REPORT, report)
    named = {o.name: as_deployed(o) for o, _ in plan.all_runs().values()}
    for label, seed in todo:
        optimizer, setting = plan.all_runs()[label]
        _train(plan, problem, named[optimizer.name], setting, label, seed, shown)


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
    from ..progress import outcome
    from ..records import Run
    from ..train import InterruptedTraining, train

    name, title = problem.name, f"{problem.name} · {label} · seed {seed}"
    batch_size = plan.batch_size or min(problem.batch_size, problem.examples)
    steps = eval_steps(plan, problem, batch_size)
    checkpoint = plan.out / CHECKPOINTS / f"{name}-{file_name(label, seed)}"
    if not plan.earlier:  # left by a comparison whose results are gone
        shutil.rmtree(checkpoint, ignore_errors=True)
    shown.note(f"{name} · {optimizer.name}: compiling")
    path = job_file(plan, name, label, seed)
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
        folder = figures(plan, name)
        folder.mkdir(parents=True, exist_ok=True)
        problem.plot(records.params[0], folder / file)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
