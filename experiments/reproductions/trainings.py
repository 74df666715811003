"""Trainings of the reproductions: problems cut to size, curves by setting and seed, short paths."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...optimizers import meka, newton_trust_region
from .. import data, registry, results
from ..errors import UsageError
from ..problem import Problem, first
from ..records import Records, Run
from ..registry import Optimizer
from ..train import Carry, Metrics, one_step
from ..train import train as train_runs

log = logging.getLogger(__package__)  # what a reproduction is doing
Curves = dict[str, np.ndarray]
Transformation = optax.GradientTransformation
Makers = Mapping[str, Callable[[], Transformation]]  # of optimizers, by name
_TABLES = ("evaluations", "steps")  # of records


def load(names: str, train: int | None = None, test: int | None = None) -> Problem:
    """Build the first of some problems whose data are there, with at most so many examples.

    `mnist|digits` takes the digits where MNIST is absent, and the name of the problem tells.
    """

    def is_there(name: str) -> bool:
        dataset = registry.find(name).dataset
        try:
            return dataset is None or bool(data.find(dataset))
        except UsageError:
            return False

    *preferred, last = names.split("|")
    problem = registry.load(next(filter(is_there, preferred), last))
    return replace(problem, data=first(problem.data, train), test=first(problem.test, test))


def published(
    acquisition: Any = "probability_of_improvement", **options: Any
) -> optax.GradientTransformationExtraArgs:
    """The published rule: steps by probability of improvement, within a few Newton steps."""
    return meka(acquisition=acquisition, trust_region=newton_trust_region(), **options)


def named(name: str, build: Callable[[Mapping[str, Any]], Transformation]) -> Optimizer:
    """An optimizer made of `setting -> transformation`."""
    return Optimizer(name, lambda setting, steps: optax.with_extra_args_support(build(setting)))


class _Kept:
    """A folder for finished trainings, and how many have been asked for."""

    def __init__(self, folder: Path):
        here = Path(__file__).resolve()
        packages = (here.parents[2] / name for name in ("curvature", "optimizers", "experiments"))
        self.folder, self.code, self.asked = folder, results.fingerprint(*packages), 0


_KEPT: ContextVar[_Kept | None] = ContextVar("_KEPT", default=None)


@contextmanager
def keep(folder: Path) -> Iterator[None]:
    """Keep each finished training of a reproduction until all are done.

    A reproduction that was interrupted, and goes on with the same code, reads what is there.
    """
    token = _KEPT.set(_Kept(folder))
    try:
        yield
    finally:
        _KEPT.reset(token)
    shutil.rmtree(folder, ignore_errors=True)


def records(
    problem: Problem, optimizer: Optimizer, runs: Sequence[Run], *, label: str, **budget: Any
) -> Records:
    """Train as `mekax.experiments.train` does, but for the parameters; see `keep`."""

    def compute() -> Records:
        found = train_runs(
            problem,
            optimizer,
            runs,
            progress=lambda now: log.info(
                "%s, %s: %.0f%%", problem.name, label, 100 * now.fraction
            ),
            **budget,
        )
        return replace(found, params=())

    kept = _KEPT.get()
    if kept is None:
        return compute()
    # What a function does, a metric's or an optimizer's, the code and the order tell.
    kept.asked += 1
    numbers = {name: value for name, value in budget.items() if not callable(value)}
    asked = (kept.code, kept.asked, problem.name, problem.examples, label, [*runs], numbers)
    path = kept.folder / f"{hashlib.sha256(repr(asked).encode()).hexdigest()[:16]}.npz"
    if not path.exists():
        _write(path, compute())
    return _read(path, runs)


def _write(path: Path, found: Records) -> None:
    """Keep columns as arrays, which are read again to the last bit, and all else as JSON."""
    names = ("optimizer", "status", "compile_seconds")
    about = json.dumps({name: getattr(found, name) for name in names})
    arrays = {
        f"{table}/{name}": column
        for table in _TABLES
        for name, column in getattr(found, table).items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        np.savez(file, allow_pickle=False, about=np.array(about), **arrays)
    unfinished.replace(path)


def _read(path: Path, runs: Sequence[Run]) -> Records:
    with np.load(path, allow_pickle=False) as archive:
        about = json.loads(str(archive["about"]))
        evaluations, steps = (
            {n.removeprefix(f"{of}/"): archive[n] for n in archive.files if n.startswith(f"{of}/")}
            for of in _TABLES
        )
    return Records(
        optimizer=about["optimizer"],
        runs=tuple(runs[: len(about["status"])]),
        status=tuple(about["status"]),
        compile_seconds=about["compile_seconds"],
        evaluations=evaluations,
        steps=steps,
    )


def train(
    problem: Problem,
    build: Callable[[Mapping[str, Any]], Transformation],
    settings: Sequence[Mapping[str, float]] = ({},),
    *,
    seeds: int,
    label: str,
    metrics: Metrics | None = None,
    **budget: Any,
) -> list[Curves]:
    """Train every setting with every seed, in one compiled program; `mekax.experiments.train`.

    Returns for each setting `step`, shape (evaluations,), and `train_loss`, `test_loss`, …, and the
    metrics, each of shape (seeds, evaluations).
    """
    runs = [Run(setting, seed) for setting in settings for seed in range(seeds)]
    found = records(problem, named(label, build), runs, label=label, metrics=metrics, **budget)
    names = [name for name, column in found.evaluations.items() if column.dtype.kind == "f"]
    arrays = {name: found.array(name) for name in names}
    step = found.array("step")[0, 0]
    return [
        {"step": step, **{name: values[index] for name, values in arrays.items()}}
        for index in range(len(settings))
    ]


def final(values: np.ndarray) -> np.ndarray:
    """Mean over the last quarter of the evaluations; infinite where it is not finite."""
    last = values[..., -max(1, values.shape[-1] // 4) :].mean(axis=-1)
    return np.where(np.isfinite(last), last, np.inf)


def final_losses(curves: Sequence[Curves]) -> np.ndarray:
    """Final train losses, of shape (settings, seeds)."""
    return np.stack([final(values["train_loss"]) for values in curves])


def paths(
    name: str,
    tx: Transformation,
    losses: Callable[[jax.Array, jax.Array], jax.Array],
    starts: jax.Array,
    noise: jax.Array,
) -> np.ndarray:
    """Follow an optimizer through batches of noise.

    Starts have shape (seeds, d), noise (seeds, steps, …), losses (n,) for `(params, batch)`, and
    the parameters after every step (seeds, steps, d).
    """
    log.info(name)
    tx = optax.with_extra_args_support(tx)
    step = one_step(lambda params, batch, key: losses(params, batch), tx)

    def advance(carry: Carry, batch: jax.Array) -> tuple[Carry, jax.Array]:
        carry, _ = step(carry, batch)
        return carry, carry.params

    def follow(start: jax.Array, noise: jax.Array) -> jax.Array:
        carry = Carry(start, tx.init(start), jax.random.key(0), jnp.zeros((), jnp.int32))
        return jax.lax.scan(advance, carry, noise)[1]

    return np.asarray(jax.jit(jax.vmap(follow))(starts, noise))
