"""One optimizer on one workload, with all its settings and seeds: a job, which is one file.

A job knows all it needs, so that any process on any machine that sees the folder can do it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import registry, results
from ..registry import OPTIMIZERS
from . import claims, suite
from .speed import step_seconds
from .suite import PROFILES, Workload

if TYPE_CHECKING:
    from ..problem import Problem
    from ..records import Progress
    from ..registry import Optimizer, Setting

CHECKPOINTS = "checkpoint"
_SCHEMA = 3


@dataclass(frozen=True)
class Job:
    """One optimizer on one workload.

    Attributes:
      workload: what to train on.
      optimizer: name in the registry.
      profile: name of the profile.
      seeds: repetitions, and for the settings of a sweep at most this many.
    """

    workload: Workload
    optimizer: str
    profile: str
    seeds: int

    @property
    def title(self) -> str:
        """For people."""
        workload = self.workload
        size = f"batch {workload.batch_size} · {workload.steps:,} steps"
        return f"{workload.problem} · {size} · {self.optimizer}"

    @property
    def sweep_seeds(self) -> int:
        """Repetitions of every setting of a baseline."""
        return min(PROFILES[self.profile].sweep_seeds, self.seeds)

    @property
    def inputs(self) -> dict[str, Any]:
        """What the content of the file depends on, besides the record of the folder."""
        others = OPTIMIZERS[self.optimizer].group in ("baseline", "learning_rate_free")
        return {
            "schema": _SCHEMA,
            "steps": self.workload.steps,
            "examples": self.workload.examples,
            "code": None if others else our_code(),
        }

    def file(self, folder: Path) -> Path:
        """Where the job is kept."""
        return folder / results.JOBS / self.workload.name / f"{self.optimizer}.json"

    def read(self, folder: Path) -> dict[str, Any] | None:
        """The finished job; None if there is none, or its inputs have changed since."""
        content = results.read_job(self.file(folder))
        return content if content and content.get("inputs") == self.inputs else None


def do(
    job: Job, folder: Path, data_dir: Path | None = None, watch: Callable[[], None] = lambda: None
) -> bool:
    """Train and time, and keep the file, unless it is there or another process is at it.

    Args:
      job: to do.
      folder: of the benchmark.
      data_dir: folder of prepared datasets, or None for the default places.
      watch: called now and then.

    Returns:
      Whether it was done here.
    """
    claim = folder / "claims" / f"{job.workload.name}-{job.optimizer}"
    if not claims.take(claim):
        return False
    try:
        if job.read(folder):  # finished between a look and the claim
            return False

        def progress(training: Progress) -> None:
            watch()
            os.utime(claim)  # a sign of life

        begin = time.perf_counter()
        problem = _load(job.workload.problem, job.workload.examples, data_dir)
        kept = _kept(job, folder)
        content = _train(job, problem, kept, progress)
        seconds = time.perf_counter() - begin
        rounds = PROFILES[job.profile].timing_rounds
        step, reference = step_seconds(problem, OPTIMIZERS[job.optimizer], job.workload, rounds)
        meta = {
            "workload": job.workload.name,
            "problem": job.workload.problem,
            "batch_size": job.workload.batch_size,
            "inputs": job.inputs,
            "timing": {
                "training_seconds": seconds,
                "step_seconds": step,
                "adam_step_seconds": reference,
            },
        }
        results.write_json(job.file(folder), {**meta, **content})
        shutil.rmtree(kept, ignore_errors=True)
        return True
    finally:
        claim.unlink(missing_ok=True)


@lru_cache(maxsize=1)  # jobs come workload by workload
def _load(name: str, examples: int | None, data_dir: Path | None) -> Problem:
    from ..problem import Source, first

    whole = registry.load(name, Source(data_dir))
    return dataclasses.replace(whole, data=first(whole.data, examples))


def _kept(job: Job, folder: Path) -> Path:
    """Where the parts of a job are until it is finished."""
    fingerprint = hashlib.sha256(json.dumps(job.inputs).encode()).hexdigest()[:8]
    return folder / CHECKPOINTS / f"{job.workload.name}-{job.optimizer}-{fingerprint}"


def _train(
    job: Job, problem: Problem, kept: Path, progress: Callable[[Progress], None]
) -> dict[str, Any]:
    """All settings with the seeds of a sweep; a baseline's default and best with the rest.

    A sweep goes on until the best is between two rates that are worse. Its best is that of the
    last iterate, and of the average if there is one.
    """
    profile, optimizer = PROFILES[job.profile], OPTIMIZERS[job.optimizer]

    def run(settings: Sequence[Setting], seeds: Sequence[int], part: str) -> dict[str, Any]:
        from ..records import Run
        from ..train import train

        path = kept / f"{part}.json"
        if not results.read_job(path):
            records = train(
                problem,
                optimizer,
                [Run(setting, seed) for setting in settings for seed in seeds],
                steps=job.workload.steps,
                batch_size=job.workload.batch_size,
                evaluations=profile.evaluations,
                eval_examples=profile.eval_examples,
                progress=progress,
                checkpoint=kept / part,
            )
            results.write_json(path, results.content(records))
        content = results.read_job(path)
        assert content
        return content

    tried = suite.settings(profile, optimizer)
    if optimizer.group != "baseline":
        return run(tried, range(job.seeds), "all")
    parts = [run(tried, range(job.sweep_seeds), "sweep")]
    while more := suite.further(tried, best := _best(optimizer, tried, results.joined(parts))):
        parts.append(run(more, range(job.sweep_seeds), f"sweep-{len(parts)}"))
        tried += more
    chosen = {optimizer.label(setting): setting for setting in (optimizer.default, *best)}
    rest = range(job.sweep_seeds, job.seeds)
    return results.joined([*parts, run([*chosen.values()], rest, "chosen")] if rest else parts)


def _best(
    optimizer: Optimizer, settings: Sequence[Setting], content: dict[str, Any]
) -> list[Setting]:
    """The best setting for each iterate that is evaluated."""
    table = results.table([content])
    labels = {optimizer.label(setting): setting for setting in settings}
    return [labels[results.best_setting(table, one)] for one in table["iterate"].unique()]


@cache
def our_code() -> str:
    """Fingerprint of the optimizers."""
    here = Path(__file__).resolve().parents[1]
    return results.fingerprint(
        here.parent / "optimizers", here.parent / "curvature", here / "variants"
    )
