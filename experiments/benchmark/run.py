"""Check what the user typed before anything heavy is imported; then share the jobs, and report."""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import registry, results
from ..errors import UsageError, expect_same, output_folder, positive_integer, unknown_name
from ..registry import OPTIMIZERS
from . import suite
from .job import Job, do
from .suite import PROFILES

if TYPE_CHECKING:
    from rich.console import Console

RECORD = "benchmark.json"  # what all jobs in a folder share
BACKENDS = ("loky", "dask", "ray")
_PAUSE = 1.0  # seconds between looks at what other processes have finished


@dataclass(frozen=True)
class Benchmark:
    """What was asked for.

    Attributes:
      jobs: everything to do, workload by workload.
      out: folder for jobs, report and figures.
      processes: that share the work.
      backend: of joblib.
      data_dir: folder of prepared datasets, or None for the default places.
      record: what all jobs in the folder share.
    """

    jobs: tuple[Job, ...]
    out: Path
    processes: int
    backend: str
    data_dir: Path | None
    record: dict[str, Any]


def check(
    problems: Sequence[str] = (),
    *,
    profile: str = "standard",
    batch_size: Sequence[str] = (),
    optimizers: Sequence[str] = (),
    ablate: bool = False,
    jobs: str | None = None,
    backend: str = "loky",
    seeds: str | None = None,
    data_dir: str | None = None,
    out: str | None = None,
) -> Benchmark:
    """Turn what the user typed into jobs; creates the output folder last of all.

    Raises:
      UsageError: for the first thing that cannot work.
    """
    if profile not in PROFILES:
        raise unknown_name("a profile", profile, PROFILES)
    size = PROFILES[profile]
    for name in problems:
        registry.find(name)
        if name not in size.sizes:
            raise UsageError(
                f"expected problems of the profile {profile}, got {name!r}, for which it says "
                f"nothing. Its problems: {', '.join(size.sizes)}."
            )
    sizes = [_batch_size(text) for text in batch_size]
    folder = None if data_dir is None else Path(data_dir)
    workloads = suite.workloads(size, problems, tuple(dict.fromkeys(sizes)), folder)
    default = [row.name for row in OPTIMIZERS.values() if row.group != "ablation"]
    names = [registry.find_optimizer(name).name for name in optimizers or default]
    if ablate:
        names += [row.name for row in registry.group("ablation")]
    processes = _cores() if jobs is None else positive_integer("--jobs", jobs)
    if backend not in BACKENDS:
        raise unknown_name("a backend of joblib", backend, BACKENDS)
    module = {"dask": "distributed"}.get(backend, backend)
    if backend != "loky" and importlib.util.find_spec(module) is None:
        raise UsageError(
            f"expected --backend to be one that is installed, got {backend}, which needs the "
            f"package {module}. Install it, or leave --backend out."
        )
    n_seeds = size.seeds if seeds is None else positive_integer("--seeds", seeds)
    for workload in workloads:
        there = registry.find(workload.problem).training_examples(folder)
        examples = min(there, workload.examples or there)
        if workload.batch_size > examples:
            raise UsageError(
                f"expected --batch-size to be at most the {examples:,} training examples that "
                f"{workload.problem} has in this profile, got {workload.batch_size}. Choose a "
                "smaller one."
            )
    todo = [
        Job(workload, name, profile, n_seeds)
        for workload in workloads
        for name in dict.fromkeys(names)
    ]
    shared = {"profile": profile, "seeds": n_seeds, "sweep_seeds": todo[0].sweep_seeds}
    shared |= {name: getattr(size, name) for name in ("evaluations", "eval_examples", "rates")}
    record = {"settings": shared, "versions": results.versions()}
    place = output_folder(out or f"results/benchmark-{datetime.now():%Y%m%d-%H%M%S}")
    _expect(place, record)
    return Benchmark(tuple(todo), place, processes, backend, folder, record)


def _batch_size(text: str) -> suite.BatchSize:
    return suite.ALL if text == suite.ALL else positive_integer("--batch-size", text)


def _cores() -> int:
    """Of this machine, as far as this process may use them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _expect(folder: Path, record: dict[str, Any]) -> None:
    """Make sure that the folder's record, if it has one, agrees with these parts of one."""
    path = folder / RECORD
    if not path.exists():
        return
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
        parts = {what: dict(recorded[what]) for what in record}
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UsageError(
            f"expected {path} to be the record of a benchmark, but it cannot be understood "
            f"({reason}). Choose another folder."
        ) from error
    for what, content in record.items():
        advice = "Repeat what began it, or choose another --out."
        expect_same(path, what, parts[what], results.plain(content), advice)


def benchmark(asked: Benchmark, console: Console, command: Sequence[str] = ()) -> bool:
    """Do what is not finished, sharing it with other processes on the same folder, and report.

    Args:
      asked: what `check` returned.
      console: where to show progress and tables.
      command: the command line, for the record.

    Returns:
      Whether all jobs are finished; False after an interrupt, with what there is kept.

    Raises:
      UsageError: if the folder holds a benchmark of another kind.
    """
    folder, jobs = asked.out, asked.jobs
    record = {**asked.record, "device": results.device()}
    _expect(folder, record)
    results.write_json(folder / RECORD, record)
    results.remove_unfinished(folder)
    todo = [job for job in jobs if not job.read(folder)]
    if 0 < len(todo) < len(jobs):
        console.print(f"Continuing: {len(jobs) - len(todo)} of {len(jobs)} jobs are finished.")
    begin, share, left = time.monotonic(), len(todo), todo
    try:
        while todo:
            took = False
            for job, mine in _run(todo, asked):
                if mine:
                    took = True
                    left = [one for one in left if not one.read(folder)]
                    done = f"{len(jobs) - len(left)} of {len(jobs)}"
                    eta = _left(time.monotonic() - begin, share - len(left), len(left))
                    console.print(f"{job.title}: done ({done}{eta})", highlight=False)
            todo = [job for job in todo if not job.read(folder)]
            if todo and not took:  # others are at them
                time.sleep(_PAUSE)
    except KeyboardInterrupt:
        done = sum(job.read(folder) is not None for job in jobs)
        console.print(
            f"Interrupted: {done} of {len(jobs)} jobs are finished and kept. To continue, "
            f"repeat the command with --out {folder}.",
            highlight=False,
            soft_wrap=True,
        )
        return False
    from . import report

    contents = [content for job in jobs if (content := job.read(folder))]
    report.write(contents, folder, {"command": list(command), **record}, console)
    return True


def _left(seconds: float, done: int, left: int) -> str:
    """Time left at the speed so far, all jobs taken for equally long."""
    if done <= 0 or not left:
        return ""
    return f", about {max(seconds / done * left / 60, 1):.0f} min left"


def _run(jobs: Sequence[Job], asked: Benchmark) -> Iterator[tuple[Job, bool]]:
    """Do jobs, here or in processes; yields each with whether it was this command's to do."""
    processes = min(asked.processes, len(jobs))
    if processes == 1 and asked.backend == "loky":
        yield from ((job, do(job, asked.out, asked.data_dir)) for job in jobs)
        return
    from joblib import Parallel, delayed, parallel_config

    calls = [delayed(_in_process)(job, asked.out, asked.data_dir, os.getpid()) for job in jobs]
    # Ray's backend returns everything at the end.
    return_as = "list" if asked.backend == "ray" else "generator_unordered"
    with _cluster(asked.backend, processes), parallel_config(asked.backend):
        pool: Any = Parallel(n_jobs=processes, return_as=return_as)
        yield from pool(calls)


def _cluster(backend: str, processes: int) -> AbstractContextManager:
    """What a backend needs besides joblib."""
    if backend == "dask":
        import dask.config
        from distributed import Client

        if dask.config.get("scheduler-address", None):  # as DASK_SCHEDULER_ADDRESS sets it
            return Client()
        return Client(n_workers=processes, threads_per_worker=1, dashboard_address=None)
    if backend == "ray":
        from ray.util.joblib import register_ray  # pyright: ignore[reportMissingImports]

        register_ray()
    return nullcontext()


def _in_process(job: Job, folder: Path, data_dir: Path | None, parent: int) -> tuple[Job, bool]:
    """Do a job in a process of its own, which ends with the one that asked for it."""
    mine = os.getppid() == parent

    def watch() -> None:
        if mine and os.getppid() != parent:
            os._exit(1)  # nobody is left who waits for it, or could end it

    return job, do(job, folder, data_dir, watch)
