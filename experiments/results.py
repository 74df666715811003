"""Results: one JSON file per job, tables of all of them, and what they say.

A job is what is computed in one go and kept in one file: the runs of one optimizer on one workload.
Files are strict JSON and are written in one step, so that a folder can be shared by processes, and
what is in it survives whatever happens next.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import platform
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from .records import Records

Frame = Any  # a pandas.DataFrame or Series, whose own types a checker cannot follow
PACKAGES = ("mekax", "jax", "jaxlib", "optax", "flax", "numpy")
JOBS = "jobs"  # folder of the files of jobs, within that of the results
MAX_STEPS = 5_000  # of a run in a file; of longer runs, every so many
_FACTS = ("workload", "problem", "batch_size", "optimizer")
_DONE = ("step", "seconds")  # of a run at its end
_DIGITS = 9  # significant digits of a number in a file: enough to tell any two of float32 apart
_STALE = 60.0  # seconds after which an unfinished file is what a killed program has left


def fingerprint(*packages: Path) -> str:
    """Of the source files in some folders: results of other code are not taken for theirs."""
    digest = hashlib.sha256()
    for package in packages:
        for path in sorted(package.rglob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def write(path: Path, records: Records, meta: Mapping[str, Any], per_step: bool = False) -> None:
    """Keep what a training recorded, in the file of a job.

    Args:
      path: `FOLDER/jobs/….json`.
      records: of the training.
      meta: what else there is to know: `workload`, `problem`, `batch_size`, ….
      per_step: keep the records of the steps as well, of a long run every so many.
    """
    write_json(path, {**meta, **content(records, per_step)})


def content(records: Records, per_step: bool = False) -> dict[str, Any]:
    """What a training recorded, as it is in the file of a job."""
    runs = []
    for place, (run, status) in enumerate(zip(records.runs, records.status, strict=True)):
        mine = records.steps["run"] == place if records.steps else np.empty(0, bool)
        done = {name: records.steps[name][mine][-1] if mine.any() else 0 for name in _DONE}
        runs.append(
            {"setting": dict(run.setting), "seed": run.seed, "status": status}
            | {"steps": done["step"], "seconds": done["seconds"]}
        )
    of_runs = {"seed", *(name for run in records.runs for name in run.setting)}
    steps = _thin(records.steps) if per_step else {}
    return {
        "optimizer": records.optimizer,
        "compile_seconds": records.compile_seconds,
        "runs": runs,
        "evaluations": {k: v for k, v in records.evaluations.items() if k not in of_runs},
        "steps": {k: v for k, v in steps.items() if k not in of_runs},
    }


def joined(contents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The content of one job of those of its parts: further runs of the same optimizer."""
    columns: dict[str, dict[str, list[Any]]] = {"evaluations": {}, "steps": {}}
    runs: list[Any] = []
    for content in contents:
        for of, into in columns.items():
            for name, values in content[of].items():
                moved = [len(runs) + value for value in values] if name == "run" else values
                into.setdefault(name, []).extend(moved)
        runs += content["runs"]
    seconds = sum(content["compile_seconds"] for content in contents)
    return {**contents[0], "compile_seconds": seconds, "runs": runs, **columns}


def jobs(folder: Path) -> tuple[list[dict[str, Any]], list[Path]]:
    """The contents of the files of jobs, by name, and the files that are damaged."""
    found, damaged = [], []
    for path in sorted((folder / JOBS).rglob("*.json")):
        content = read_job(path)
        if content is None:
            damaged.append(path)
        else:
            found.append(content)
    return found, damaged


def read_job(path: Path) -> dict[str, Any] | None:
    """The content of the file of a job; None if it is absent or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = [len(column) for column in content["evaluations"].values()]
        steps = [len(column) for column in content["steps"].values()]
        whole = len({*rows}) <= 1 and len({*steps}) <= 1
        known = all({"setting", "seed", "status"} <= run.keys() for run in content["runs"])
        return content if whole and known and isinstance(content["optimizer"], str) else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def table(contents: Sequence[Mapping[str, Any]], of: str = "evaluations") -> Frame:
    """One row per workload, optimizer, setting, seed, iterate and evaluation; or per step.

    Args:
      contents: of jobs.
      of: `evaluations` or `steps`.
    """
    import pandas as pd

    from .registry import OPTIMIZERS

    frames = []
    for job in contents:
        frame = pd.DataFrame(job[of])
        if frame.empty:
            continue
        optimizer, runs = job["optimizer"], job["runs"]
        labels = [
            OPTIMIZERS[optimizer].label(run["setting"]) if optimizer in OPTIMIZERS else optimizer
            for run in runs
        ]
        of_runs = pd.DataFrame(
            [
                {"label": label, "seed": run["seed"], "status": run["status"], **run["setting"]}
                for label, run in zip(labels, runs, strict=True)
            ]
        )
        facts = {name: job.get(name) for name in _FACTS}
        frames.append(frame.join(of_runs, on="run").assign(**facts))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def read(folder: Path) -> Frame:
    """The `table` of all evaluations in a folder."""
    return table(jobs(folder)[0])


def _thin(steps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every so many steps, that no run has more than a file should hold."""
    if not steps:
        return {}
    stride = max(1, math.ceil(int(steps["step"].max()) / MAX_STEPS))
    kept = (steps["step"] - 1) % stride == 0
    return {name: values[kept] for name, values in steps.items()}


# Statistics


class Interval(NamedTuple):
    """A mean and the ends of its interval; the ends are the mean where there is one value."""

    mean: float
    low: float
    high: float


def bootstrap(values: Sequence[float] | np.ndarray, geometric: bool = False) -> Interval:
    """Mean with its 95 % percentile bootstrap interval; the same values give the same interval.

    Args:
      values: finite numbers, at least one.
      geometric: take the geometric mean of positive numbers.

    Example:
      >>> bootstrap([1.0, 4.0], geometric=True)
      Interval(mean=2.0, low=1.0, high=4.0)
    """
    x = np.asarray(values, float)
    if x.size == 0 or not np.isfinite(x).all():
        raise ValueError(f"mekax: expected one or more finite values, got {x}.")
    if geometric:
        return Interval(*(round(v, 12) for v in np.exp(bootstrap(np.log(x))).tolist()))
    return _bootstrap(tuple(x.tolist()))


@lru_cache(maxsize=4096)  # the same rows are in several tables
def _bootstrap(values: tuple[float, ...]) -> Interval:
    mean = float(np.mean(values))
    if len(set(values)) == 1:
        return Interval(mean, mean, mean)
    from scipy import stats

    found = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(2020)
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


def final(frame: Frame) -> Frame:
    """The last evaluation of each run and iterate; of one that diverged, an infinite loss."""
    keys = ["workload", "label", "iterate", "seed"]
    last = frame.sort_values("step", kind="stable").groupby(keys, sort=False, dropna=False).tail(1)
    last = last.copy()
    for name in last.columns[last.columns.str.endswith("_loss")]:
        known = np.isfinite(last[name].astype(float)) & (last["status"] != "diverged")
        last[name] = last[name].astype(float).where(known, np.inf)
    return last


def best_setting(frame: Frame, iterate: str = "last") -> str:
    """Label of the setting with the lowest mean final train loss, over the seeds that all have."""
    last = final(frame[frame["iterate"] == iterate])
    seeds = last.groupby("label", sort=False)["seed"].agg(set)
    shared = last[last["seed"].isin(set.intersection(*seeds))]
    return str(shared.groupby("label", sort=False)["train_loss"].mean().idxmin())


def ratio(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Interval:
    """Geometric mean of ratios over the seeds that both have; below 1 is better than theirs.

    Infinite if one of ours diverged, 0 if only one of theirs did; not a number if a loss is
    negative, as that of a density may be.

    Args:
      ours: final losses, or errors, by seed; infinite where a run diverged.
      theirs: likewise.
    """
    seeds = [seed for seed in ours if seed in theirs]
    pair = np.array([[side[seed] for seed in seeds] for side in (ours, theirs)], float)
    if (pair < 0).any():
        return Interval(math.nan, math.nan, math.nan)
    with np.errstate(invalid="ignore"):
        logs = np.subtract(*np.log(np.maximum(pair, _TINY)))
    logs = logs[~np.isnan(logs)]  # where both diverged
    if not logs.size or (logs == np.inf).any():
        return Interval(math.inf, math.inf, math.inf)
    if (logs == -np.inf).any():
        return Interval(0.0, 0.0, 0.0)
    return Interval(*np.exp(bootstrap(logs)).tolist())


_TINY = 1e-12  # of a loss: an exact 0 must not make a ratio of nothing


def profile_scores(times: Frame, most: float = 4.0) -> Frame:
    """Score of each optimizer by its performance profile, from 0 to 1.

    With t the time to the target and r = t / (the fastest's t on the same workload), the profile
    ρ(τ) is the share of workloads with r ≤ τ; the score is its mean over τ from 1 to `most`.
    Source: Dahl et al. (2023), arXiv 2306.07179, section 4.5; Dolan & Moré (2002).

    Args:
      times: to the target, a row for each workload, a column for each optimizer; infinite if it is
        never reached, not a number if the optimizer was not tried there.
      most: largest τ.

    Example:
      >>> import pandas as pd
      >>> profile_scores(pd.DataFrame({"a": [1.0, 2.0], "b": [2.0, math.inf]})).round(3).to_dict()
      {'a': 1.0, 'b': 0.333}
    """
    fastest = times.min(axis=1)
    reached = np.isfinite(fastest)  # a target that nobody reaches tells nothing
    ratios = times[reached].div(fastest[reached], axis=0)
    area = ((most - ratios.clip(1, most)) / (most - 1)).where(ratios.notna())
    return area.mean(axis=0)


# Files


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON in one step: the file is the old one or the new one, never half of it.

    Numbers that are not finite become null; arrays become lists; floats keep 9 digits, which give
    back every float32 exactly.
    """
    text = json.dumps(plain(content), allow_nan=False, ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of this process alone: another may be writing the same.
    temporary = path.with_name(f"{path.name}.{platform.node()}-{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())  # or a crash of the machine could leave an empty file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove files that killed programs left while they were writing."""
    for path in folder.rglob("*.json.*.tmp"):
        if time.time() - path.stat().st_mtime > _STALE:
            path.unlink(missing_ok=True)


def plain(value: Any, digits: int = _DIGITS) -> Any:
    """The same content in dicts, lists, strings, numbers, booleans and None.

    Args:
      value: the content; what is not finite becomes None.
      digits: significant ones of a number that are kept.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item, digits) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, digits) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # arrays and their scalars
        return plain(value.tolist(), digits)
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    return value


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that a result depends on."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def device() -> dict[str, Any]:
    """What the computation runs on."""
    import jax
    import jax.numpy as jnp

    (first,) = jnp.zeros(()).devices()  # also where another one than JAX's first was asked for
    return {"platform": first.platform, "kind": first.device_kind, "count": jax.device_count()}
