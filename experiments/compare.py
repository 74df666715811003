"""Optimizers side by side: same initial parameters, same data order, same budget."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from . import files, plots, problems, resuming, schedule, summary, tables
from .checkpoints import Checkpoints
from .optimizer_specs import OptimizerSpec, grid
from .program import Program, compile_program
from .progress import Display, display
from .resuming import SCHEMA, Earlier
from .runs import Run
from .settings import RESULTS, Settings
from .training import train


def compare(
    settings: Settings,
    console: Console,
    command: Sequence[str] = (),
    earlier: Earlier | None = None,
) -> bool:
    """Run everything, writing results as they come; then show the tables and draw the figures.

    Args:
      settings: checked settings.
      console: where to show progress and tables.
      command: the command line, for the record.
      earlier: the comparison to continue, made with the same settings; or None to begin.

    Returns:
      Whether all runs were done; False after an interrupt, with what there is written and shown.
    """
    report = _report(settings, command, earlier)
    runs: list[Run] = list(earlier.runs) if earlier else []
    if earlier:
        console.print(f"Continuing; runs that are done: {len(runs)}.", highlight=False)
    for run in runs:
        Checkpoints(settings.out, run).remove()  # a kill may come just before it is removed
    try:
        _write(settings, report, runs)
        with display(console) as shown:
            for name in settings.problems:
                _run_problem(name, settings, runs, report, shown)
        report["status"] = "finished"
    except KeyboardInterrupt:
        report["status"] = "interrupted"
        console.print(
            f"Interrupted: keeping what is done. To continue, repeat the command with "
            f"--out {settings.out} --resume.",
            highlight=False,
            soft_wrap=True,
        )
    except BaseException:
        report["status"] = "failed"
        raise
    finally:
        for run in runs:
            if run.status == "running":
                run.status = "interrupted"
        _write(settings, report, runs)
    _show(settings, runs, console)
    return report["status"] == "finished"


def _report(settings: Settings, command: Sequence[str], earlier: Earlier | None) -> dict[str, Any]:
    """What is recorded besides the runs; a continued comparison keeps what was."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    report = {
        "schema": SCHEMA,
        "command": list(command) or sys.argv,
        "started": now,
        "resumed": [],
        "status": "running",
        "settings": settings.as_dict(),
        "versions": files.versions(),
        "device": files.device(),
        "problems": {},
    }
    if earlier is None:
        return report
    advice = "Continue on the recorded one, or compare anew in another folder."
    resuming.expect_same(earlier.path, "device", earlier.report["device"], report["device"], advice)
    resumed = [*earlier.report.get("resumed", []), now]
    kept = {name: earlier.report[name] for name in ("command", "started", "problems")}
    return {**report, **kept, "resumed": resumed}


def specs_to_run(settings: Settings) -> tuple[OptimizerSpec, ...]:
    """What was asked for, and with `tune` the grids of the baselines among it, without repeats."""
    swept = [spec for grid_specs in grids(settings) for spec in grid_specs]
    return tuple(dict.fromkeys((*settings.optimizers, *swept)))


def grids(settings: Settings) -> list[tuple[OptimizerSpec, ...]]:
    """Grid of each kind of baseline to tune, which includes the rates asked for."""
    if not settings.tune:
        return []
    kinds = dict.fromkeys(spec.kind for spec in settings.optimizers if spec.is_baseline)
    return [
        tuple(dict.fromkeys((*grid(kind), *(s for s in settings.optimizers if s.kind == kind))))
        for kind in kinds
    ]


def _run_problem(
    name: str, settings: Settings, runs: list[Run], report: dict[str, Any], shown: Display
) -> None:
    """Train what is not among the runs yet, adding to them and to the report."""
    done = {(run.spec, run.seed) for run in runs if run.problem == name}
    todo = [
        (seed, spec)
        for seed in range(settings.seeds)
        for spec in specs_to_run(settings)
        if (spec, seed) not in done
    ]
    if not todo:
        return
    shown.note(f"{name}: loading")
    problem = problems.load(name, problems.Source(settings.data_dir, shown.note))
    batch_size = settings.batch_size or min(problem.batch_size, problem.examples)
    budget = _budget(settings, problem, batch_size)
    facts = {
        "description": problems.find(name).description,
        "examples": problem.examples,
        "parameters": _parameters(problem),
        "batch_size": batch_size,
        "steps_per_epoch": problem.examples // batch_size,
        "steps": budget.looks[-1] if budget.looks else None,
    }
    recorded = report["problems"].setdefault(name, facts)
    advice = "Give the data that it began with, or compare anew in another folder."
    resuming.expect_same(settings.out / RESULTS, f"problem {name}", recorded, facts, advice)
    programs: dict[str, Program] = {}
    for seed, spec in todo:
        run = Run(name, spec, seed)
        if spec.kind not in programs:
            shown.note(f"{name} · {spec.kind}: compiling")
            programs[spec.kind] = compile_program(problem, spec.kind, batch_size)
            run.compile_seconds = programs[spec.kind].compile_seconds
        checkpoints = Checkpoints(settings.out, run, shown.say)
        if not report["resumed"]:
            checkpoints.remove()  # left by a comparison whose results are gone
        runs.append(run)
        params = train(
            run,
            problem,
            programs[spec.kind],
            budget,
            lambda run=run: shown.update(run, budget),
            checkpoints,
        )
        shown.end(run)
        # Tables and figures show what the file holds, whether or not a run is read back from it.
        runs[-1] = Run.from_dict(files.plain(run.as_dict()))
        _write(settings, report, runs)
        checkpoints.remove()
        if problem.plot and run.status == "finished" and not seed and spec in settings.optimizers:
            file = f"learned-{spec.label.replace(':', '-')}.png"
            problem.plot(params, _folder(settings, name) / file)


def _budget(settings: Settings, problem: problems.Problem, batch_size: int) -> schedule.Budget:
    if settings.seconds is not None:
        return schedule.of_seconds(settings.seconds, problem.evaluations)
    epochs = settings.epochs or problem.epochs
    return schedule.of_epochs(epochs, problem.examples // batch_size, problem.evaluations)


def _parameters(problem: problems.Problem) -> int:
    shapes = jax.eval_shape(problem.init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def _write(settings: Settings, report: dict[str, Any], runs: Sequence[Run]) -> None:
    done = [run for run in runs if run.status != "running"]
    tuning = {name: [s.as_dict() for s in _sweeps(settings, name, done)] for name in _names(done)}
    content = {**report, "tuning": tuning, "runs": [run.as_dict() for run in done]}
    files.write_json(settings.out / RESULTS, content)


def _names(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(run.problem for run in runs))


def _sweeps(settings: Settings, name: str, runs: Sequence[Run]) -> list[summary.Sweep]:
    mine = [run for run in runs if run.problem == name]
    found = [summary.sweep(mine, specs, settings.seeds) for specs in grids(settings)]
    return [one for one in found if one is not None]


def _folder(settings: Settings, name: str) -> Path:
    """Where the figures of a problem go; made if need be."""
    folder = settings.out / name if len(settings.problems) > 1 else settings.out
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _show(settings: Settings, runs: Sequence[Run], console: Console) -> None:
    for name in _names(runs):
        mine = [run for run in runs if run.problem == name]
        rows = summary.rows(mine, settings.optimizers)
        sweeps = _sweeps(settings, name, runs)
        for sweep in sweeps:
            label = f"{sweep.kind} best of {len(sweep.specs)}: {sweep.best.learning_rate:g}"
            best = summary.row(mine, sweep.best, label)
            rows += [best] if best else []
        if not rows:
            continue
        console.print(tables.table(name, rows))
        for sweep in sweeps:
            console.print(tables.sweep_line(sweep), highlight=False)
        plots.draw_all(name, rows, _folder(settings, name))
    console.print(f"Results and figures: {settings.out}", highlight=False, soft_wrap=True)
