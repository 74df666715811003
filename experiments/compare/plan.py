"""What is compared: what the user typed, checked before anything heavy is imported."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .. import registry, results
from ..errors import UsageError, expect_same, output_folder, positive_integer, positive_number
from ..registry import Optimizer, Setting

DEFAULT_PROBLEMS = ("digits",)
DEFAULT_OPTIMIZERS = ("meka", "adameka", "adam:1e-3", "sgd:0.1")
REPORT = "results.json"  # what all jobs of a comparison share
SCHEMA = 2  # of the report


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
    return dataclasses.replace(plan, earlier=earlier_report(plan) if resume else None)


def earlier_report(plan: Comparison) -> dict[str, Any] | None:
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


def runs(plan: Comparison) -> list[tuple[str, int]]:
    """Labels and seeds, seed by seed, so that an early end leaves all optimizers with some."""
    return [(label, seed) for seed in range(plan.seeds) for label in plan.all_runs()]


def file_name(label: str, seed: int) -> str:
    return f"{re.sub(r'[^A-Za-z0-9.+_-]+', '-', label)}-seed-{seed}"


def job_file(plan: Comparison, name: str, label: str, seed: int) -> Path:
    return plan.out / results.JOBS / name / f"{file_name(label, seed)}.json"


def is_done(plan: Comparison, name: str, label: str, seed: int) -> bool:
    job = results.read_job(job_file(plan, name, label, seed))
    return job is not None and job["runs"][0]["status"] != "interrupted"


def figures(plan: Comparison, name: str) -> Path:
    """Where the figures of a problem go."""
    return plan.out / name if len(plan.problems) > 1 else plan.out
