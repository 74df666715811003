"""`mekax benchmark`: self-tuning against swept baselines and others, on a suite of problems.

A job is one optimizer on one workload, with all its settings and seeds. It is one file, and knows
all it needs, so that any process on any machine that sees the folder can do it. What the user typed
is checked before anything heavy is imported.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import registry, results, suite
from .errors import UsageError, expect_same, output_folder, positive_integer, unknown_name
from .registry import OPTIMIZERS
from .suite import PROFILES, REFERENCE, Workload

if TYPE_CHECKING:
    from rich.console import Console

    from .problem import Problem
    from .records import Progress
    from .registry import Optimizer, Setting

RECORD = "benchmark.json"  # what all jobs in a folder share
CHECKPOINTS = "checkpoint"
BACKENDS = ("loky", "dask", "ray")
_SCHEMA = 3
_PAUSE = 1.0  # seconds between looks at what other processes have finished
_FOREIGN = 900.0  # seconds without a sign of life after which another machine's claim is void


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
    if not _take(claim):
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
    from .problem import Source, first

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
        from .records import Run
        from .train import train

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


# Claims: files that say who is at a job. They save work and nothing depends on them, because
# every file of results is written in one step.


def _take(claim: Path) -> bool:
    """Whether a job is now this process's to do."""
    claim.parent.mkdir(parents=True, exist_ok=True)
    name = f"{platform.node()} {os.getpid()}"
    if claim.exists() and not _is_alive(claim):
        claim.unlink(missing_ok=True)
    try:
        with claim.open("x", encoding="utf-8") as file:
            file.write(name)
    except FileExistsError:
        return False
    return True


def _is_alive(claim: Path) -> bool:
    """Whether the process that made a claim still works on it."""
    try:
        machine, _, number = claim.read_text(encoding="utf-8").partition(" ")
        age = time.time() - claim.stat().st_mtime
    except OSError:  # given up just now
        return False
    if machine != platform.node() or os.name == "nt" or not number.isdecimal():
        return age < _FOREIGN
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@cache
def our_code() -> str:
    """Fingerprint of the optimizers."""
    here = Path(__file__).resolve().parent
    return results.fingerprint(
        here.parent / "optimizers", here.parent / "curvature", here / "variants"
    )


# Speed


_SECONDS = 0.05  # that one measurement takes, at least
_MOST_STEPS = 50_000
_BATCHES = 20  # that the steps go through, over and over
_PERIOD = 10  # steps after which what an optimizer does repeats; 40 are past its beginning


def step_seconds(
    problem: Problem, optimizer: Optimizer, workload: Workload, rounds: int
) -> tuple[float, float]:
    """Seconds per step of an optimizer and of Adam, measured in turns.

    A busy machine slows both; the least of each counts, because whatever else the machine does
    only adds.
    """
    ours, adam = (
        clock(problem, optimizer, workload.batch_size),
        _adam(problem, workload.batch_size),
    )
    measured = [(ours(), adam()) for _ in range(rounds)]
    least = [min(values) for values in zip(*measured, strict=True)]
    return least[0], least[1]


@lru_cache(maxsize=1)
def _adam(problem: Problem, batch_size: int) -> Callable[[], float]:
    plain = dataclasses.replace(OPTIMIZERS[REFERENCE], averaged=False)
    return clock(problem, plain, batch_size)


def clock(problem: Problem, optimizer: Optimizer, batch_size: int) -> Callable[[], float]:
    """Compile steps, and return what times a few of them at their steady pace."""
    import jax
    import jax.numpy as jnp

    from . import train
    from .data import batches

    tx = train.build(optimizer, optimizer.default, _MOST_STEPS)
    step = train.one_step(problem.losses, tx)

    @jax.jit
    def run(carry: train.Carry, rows: jax.Array, count: jax.Array, data: Any) -> train.Carry:
        def body(index: jax.Array, carry: train.Carry) -> train.Carry:
            mine = rows[index % _BATCHES]
            return step(carry, jax.tree.map(lambda leaf: leaf[mine], data))[0]

        return jax.lax.fori_loop(0, count, body, carry)

    rows = jnp.asarray(batches(0, 0, _BATCHES, problem.examples, batch_size))
    carry = train.start(problem, tx, jax.random.key(0))
    warm = run(carry, rows, jnp.int32(4 * _PERIOD), problem.data)  # compiles

    def seconds(count: int) -> float:
        begin = time.perf_counter()
        jax.block_until_ready(run(warm, rows, jnp.int32(count), problem.data))
        return (time.perf_counter() - begin) / count

    count = _PERIOD
    while count < _MOST_STEPS and count * seconds(count) < _SECONDS:
        count *= 2
    return lambda: seconds(count)
