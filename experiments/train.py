"""The training loop: one optimizer on one problem, for any number of settings and seeds.

Small problems leave a processor waiting for the next operation; runs that are vectorized share each
operation. Where a clock is watched or every step is recorded, the runs go one after the other. Both
go in chunks of steps, so that they can be shown, interrupted, and continued bit for bit.
"""

from __future__ import annotations

import shutil
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .. import optimizers
from .data import batches
from .problem import TRAIN_EXAMPLES, Problem, first
from .records import AVERAGE, LAST, Progress, Records, Run, tabulate
from .registry import Optimizer, Setting

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

PyTree = Any
Metrics = Callable[[PyTree, PyTree, PyTree], Mapping[str, jax.Array]]
CHUNK = 64  # steps between two returns to Python, at most
AT_ONCE = 6  # vectorized runs: more of them share operations, fewer share the cache
_CHUNK_SECONDS = 0.3  # that a chunk takes, roughly
_METRICS = ("step_size", "radius", "slope_ratio", "gain", "num_adaptations", "num_rejected")


class Carry(NamedTuple):
    """What one step hands to the next."""

    params: PyTree
    state: PyTree
    key: jax.Array
    count: jax.Array


class InterruptedTraining(KeyboardInterrupt):
    """Ctrl-C during a training; `records` hold all that was done."""

    def __init__(self, records: Records):
        super().__init__()
        self.records = records


def train(
    problem: Problem,
    optimizer: Optimizer,
    runs: Sequence[Run],
    *,
    steps: int,
    batch_size: int,
    evaluations: int | Sequence[int] = 1,
    eval_examples: int | None = None,
    seconds: float | None = None,
    per_step: bool = False,
    metrics: Metrics | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
    checkpoint: Path | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> Records:
    """Train every run; the same seed is the same start, data order and keys for every optimizer.

    Programs are kept with the problem: a further call with the same optimizer compiles nothing.

    Args:
      problem: what to minimize.
      optimizer: a row of the registry, or one made on the spot.
      runs: settings and seeds; all settings have the same names.
      steps: of each run; `optimizer.build` is told.
      batch_size: examples per step.
      evaluations: how often to evaluate, at equal distances, the last time at the end; or the
        numbers of steps after which to evaluate, ascending, 0 for before the first.
      eval_examples: training and test examples to evaluate on, at most; by default 10,000 training
        examples and all test examples.
      seconds: training time of each run in place of `steps`, compiling and evaluating apart; it is
        evaluated at the beginning, and then so many times.
      per_step: record all metrics at every step, and end a run whose loss is not finite.
      metrics: `(state, params, train examples) -> scalars by name`, read at each evaluation; by
        default the main ones that the optimizer has.
      progress: called after every chunk of steps.
      checkpoint: folder of checkpoints, to continue from where there are any; removed at the end.
      report: called with a line of text if a checkpoint turns out to be damaged.

    Raises:
      InterruptedTraining: after Ctrl-C, with what was recorded until then.
    """
    runs = tuple(runs)
    one_by_one = per_step or seconds is not None
    groups = len(runs) if one_by_one else -(-len(runs) // AT_ONCE)
    width = -(-len(runs) // groups)  # the same for all groups, so that one program serves
    budget = _Budget(_eval_steps(evaluations, steps), seconds)
    key = (optimizer, steps, batch_size, one_by_one, width, eval_examples, metrics)
    clock = time.perf_counter()
    fresh = key not in problem.programs
    if fresh:
        problem.programs[key] = _compile(problem, *key, runs[0].setting)
    compile_seconds = time.perf_counter() - clock if fresh else 0.0
    program: _Program = problem.programs[key]

    trained: list[Progress] = []
    for group in range(groups):
        members = runs[group * width : (group + 1) * width]
        now = Progress(members)
        trained.append(now)

        def tell(now: Progress = now, group: int = group) -> None:
            now.fraction = (group + budget.fraction(now)) / groups
            progress(now)

        saved = None
        if checkpoint:
            from .checkpoint import Checkpoint  # Orbax takes a second to import

            identity = [problem.name, optimizer.name, steps, batch_size, [*map(list, members)]]
            saved = Checkpoint(checkpoint / f"group-{group}", identity, report)
        try:
            _train_group(program, now, width, budget, saved, tell)
        except KeyboardInterrupt as error:
            now.status = "interrupted"
            found = tabulate(optimizer.name, runs, trained, compile_seconds)
            raise InterruptedTraining(found) from error
    if checkpoint:
        shutil.rmtree(checkpoint, ignore_errors=True)
    return tabulate(optimizer.name, runs, trained, compile_seconds)


def build(
    optimizer: Optimizer, setting: Setting, steps: int
) -> optax.GradientTransformationExtraArgs:
    """The transformation that is trained, with an average of the iterates where that is asked."""
    tx = optimizer.build(setting, steps)
    return _averaging(tx) if optimizer.averaged else tx


def as_deployed(optimizer: Optimizer) -> Optimizer:
    """The same, evaluated in one place: the one it says to deploy, ours the average they keep."""
    place = optimizer.eval_params or (lambda: optimizers.eval_params)
    return replace(optimizer, averaged=False, eval_params=place)


def _averaging(tx: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """Keep an average of the iterates, unless the transformation does so itself."""
    chained = optax.chain(tx, optimizers.average_iterates())

    def init(params: PyTree) -> PyTree:
        state = tx.init(params)
        return (state,) if _keeps_average(state, params) else chained.init(params)

    def update(updates, state, params=None, **extra_args):
        if len(state) > 1:
            return chained.update(updates, state, params, **extra_args)
        updates, inner = tx.update(updates, state[0], params, **extra_args)
        return updates, (inner,)

    return optax.GradientTransformationExtraArgs(init, update)


def _keeps_average(state: PyTree, params: PyTree) -> bool:
    # Where no average is kept, the parameters themselves come back.
    return optimizers.eval_params(state, params) is not params


def one_step(
    losses: Callable[[PyTree, PyTree, jax.Array], jax.Array],
    tx: optax.GradientTransformationExtraArgs,
    per_step: bool = False,
) -> Callable[[Carry, PyTree], tuple[Carry, dict[str, jax.Array]]]:
    """`(carry, batch) -> (carry, records)`: what every optimizer is given, and nothing else.

    Args:
      losses: `(params, batch, key) -> (n,)`, those of a problem.
      tx: the optimizer.
      per_step: record norms and all metrics besides the loss of the batch before the step.
    """

    def step(carry: Carry, batch: PyTree) -> tuple[Carry, dict[str, jax.Array]]:
        params, state, key, count = carry
        batch_key = jax.random.fold_in(key, count)

        def value_fn(params: PyTree) -> jax.Array:
            return losses(params, batch, batch_key)

        value, grads = jax.value_and_grad(lambda p: jnp.mean(value_fn(p)))(params)
        updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=value_fn)
        params: PyTree = optax.apply_updates(params, updates)
        records = {"loss": value}
        if per_step:
            records["gradient_norm"] = optax.tree.norm(grads)
            records["step_length"] = optax.tree.norm(updates)
            records |= optimizers.metrics(state)
        return Carry(params, state, key, count + 1), records

    return step


def start(problem: Problem, tx: optax.GradientTransformationExtraArgs, key: jax.Array) -> Carry:
    """What the first step is handed."""
    init_key, step_key = jax.random.split(key)
    params = problem.init(init_key)
    return Carry(params, tx.init(params), step_key, jnp.zeros((), jnp.int32))


@dataclass(frozen=True)
class _Budget:
    """When a run ends and when it is evaluated: at fixed steps, or by the clock."""

    eval_steps: tuple[int, ...]
    seconds: float | None

    def chunk(self, now: Progress) -> int:
        """Steps until the next return to Python: until an evaluation, or for a moment."""
        affordable = int(_CHUNK_SECONDS * now.step / now.seconds) if now.step else 1
        if self.seconds is None:
            next_eval = self.eval_steps[bisect_right(self.eval_steps, now.step)]
            affordable = min(affordable, next_eval - now.step)
        return max(1, min(CHUNK, affordable))

    def is_due(self, now: Progress) -> bool:
        if self.seconds is None:
            return now.step in self.eval_steps
        if not now.evaluations:
            return True
        since = now.seconds - now.evaluations[-1]["seconds"]
        return since >= self.seconds / len(self.eval_steps)

    def fraction(self, now: Progress) -> float:
        if self.seconds is None:
            return now.step / self.eval_steps[-1]
        return min(now.seconds / self.seconds, 1.0)


def _eval_steps(evaluations: int | Sequence[int], steps: int) -> tuple[int, ...]:
    if not isinstance(evaluations, int):
        return tuple(evaluations)
    return tuple(steps * (k + 1) // evaluations for k in range(evaluations))


class _Program(NamedTuple):
    """Compiled training of a number of vectorized runs; all arrays have a leading axis of runs.

    Attributes:
      start: `runs -> carry`.
      advance: `(runs, carry, step, count) -> (carry, records)`: so many steps; uses up `carry`.
      evaluate: `carry -> values`, by iterate and name.
      evaluated: `carry -> params`, where the last iterate is evaluated.
      per_step: whether the records are complete, and what diverges ends.
    """

    start: Callable[[Sequence[Run]], Carry]
    advance: Callable[[Sequence[Run], Carry, int, int], tuple[Carry, dict[str, np.ndarray]]]
    evaluate: Callable[[Carry], dict[str, dict[str, np.ndarray]]]
    evaluated: Callable[[Carry], PyTree]
    per_step: bool


def _train_group(
    program: _Program,
    now: Progress,
    width: int,
    budget: _Budget,
    saved: Checkpoint | None,
    tell: Callable[[], None],
) -> None:
    """Train runs side by side until their budget is spent; with one run, or until it diverges."""
    runs = (*now.runs, *[now.runs[-1]] * (width - len(now.runs)))
    carry = program.start(runs)
    if saved:
        carry = saved.restore(carry, now)
    while now.status == "running":
        if budget.is_due(now) and (not now.evaluations or now.evaluations[-1]["step"] < now.step):
            _evaluate(program, now, carry)
        tell()
        if budget.fraction(now) == 1 or now.status != "running":
            break
        if saved and now.step:
            saved.offer(carry, now)
        length = budget.chunk(now)
        clock = time.perf_counter()
        carry, records = program.advance(runs, carry, now.step, length)
        elapsed = time.perf_counter() - clock
        clocks = now.seconds + elapsed * np.arange(1, length + 1) / length
        now.chunks.append({**records, "seconds": np.tile(clocks, (width, 1))})
        now.step, now.seconds = now.step + length, float(clocks[-1])
        if program.per_step and not np.isfinite(records["loss"]).all():
            now.status = "diverged"
            tell()
    if now.status == "running":
        now.status = "finished"
        if now.evaluations[-1]["step"] < now.step:  # a budget of time ends between evaluations
            _evaluate(program, now, carry)
    now.params = program.evaluated(carry)


def _evaluate(program: _Program, now: Progress, carry: Carry) -> None:
    values = program.evaluate(carry)
    now.evaluations.append({"step": now.step, "seconds": now.seconds, **values})
    if program.per_step and not np.isfinite(values[LAST]["train_loss"]).all():
        now.status = "diverged"


def _compile(
    problem: Problem,
    optimizer: Optimizer,
    steps: int,
    batch_size: int,
    per_step: bool,
    width: int,
    eval_examples: int | None,
    metrics: Metrics | None,
    setting: Setting,
) -> _Program:
    train_examples = first(problem.data, eval_examples or TRAIN_EXAMPLES)
    test_examples = first(problem.test, eval_examples)

    def begin(setting: Setting, key: jax.Array) -> Carry:
        return start(problem, build(optimizer, setting, steps), key)

    def advance(
        setting: Setting, carry: Carry, rows: jax.Array, count: jax.Array, data: PyTree
    ) -> tuple[Carry, dict[str, jax.Array]]:
        step = one_step(problem.losses, build(optimizer, setting, steps), per_step)

        def at(index: Any) -> PyTree:
            return jax.tree.map(lambda leaf: leaf[rows[index]], data)

        def body(index: jax.Array, loop: Any) -> Any:
            carry, records = loop
            carry, record = step(carry, at(index))
            return carry, {name: records[name].at[index].set(record[name]) for name in records}

        names = jax.eval_shape(step, carry, at(0))[1]
        records = {name: jnp.zeros(CHUNK, jnp.float32) for name in names}
        # The number of steps is dynamic, so that one program serves every chunk.
        return jax.lax.fori_loop(0, count, body, (carry, records))

    def places(carry: Carry, train_examples: PyTree) -> tuple[dict[str, PyTree], PyTree]:
        last = carry.params
        if optimizer.eval_params:
            last = optimizer.eval_params()(carry.state, carry.params)
        found = {LAST: last}
        if optimizer.averaged:
            found[AVERAGE] = optimizers.eval_params(carry.state, carry.params)
        known = (metrics or _main_metrics)(carry.state, carry.params, train_examples)
        return found, {name: jnp.float32(value) for name, value in known.items()}

    begin_all = jax.jit(_over_runs(begin, width, (0, 0)))
    advance_all = jax.jit(_over_runs(advance, width, (0, 0, 0, None, None)), donate_argnums=1)
    places_all = jax.jit(_over_runs(places, width, (0, None)))

    def settings_of(runs: Sequence[Run]) -> dict[str, jax.Array]:
        return {
            name: jnp.asarray([run.setting[name] for run in runs], jnp.float32) for name in setting
        }

    def start_runs(runs: Sequence[Run]) -> Carry:
        keys = jax.vmap(jax.random.key)(jnp.asarray([run.seed for run in runs]))
        return begin_all(settings_of(runs), keys)

    def advance_runs(
        runs: Sequence[Run], carry: Carry, step: int, count: int
    ) -> tuple[Carry, dict[str, np.ndarray]]:
        rows = [batches(run.seed, step, count, problem.examples, batch_size) for run in runs]
        padded = np.pad(np.stack(rows), ((0, 0), (0, CHUNK - count), (0, 0)))
        settings, number = settings_of(runs), np.int32(count)
        carry, records = advance_all(settings, carry, padded, number, problem.data)
        host = jax.device_get(records)
        return carry, {name: values[:, :count] for name, values in host.items()}

    def evaluate(carry: Carry) -> dict[str, dict[str, np.ndarray]]:
        found, known = places_all(carry, train_examples)
        measured = {
            name: _measure(problem, params, width, train_examples, test_examples)
            for name, params in found.items()
        }
        return jax.device_get({**measured, "metrics": known})

    def evaluated(carry: Carry) -> PyTree:
        return places_all(carry, train_examples)[0][LAST]

    # Compiles, and the first execution is slower than the rest: neither counts as training.
    any_runs = [Run(setting, 0)] * width
    jax.block_until_ready(advance_runs(any_runs, start_runs(any_runs), 0, 1))
    return _Program(start_runs, advance_runs, evaluate, evaluated, per_step)


def _main_metrics(state: PyTree, params: PyTree, train: PyTree) -> Mapping[str, jax.Array]:
    del params, train
    known = optimizers.metrics(state)
    return {name: known[name] for name in _METRICS if name in known}


def _measure(
    problem: Problem, params: PyTree, width: int, train: PyTree, test: PyTree
) -> dict[str, jax.Array]:
    if width > 1:
        over = problem.programs.setdefault(
            "measures", jax.jit(jax.vmap(problem.measures, (0, None, None)))
        )
        return over(params, train, test)
    values = problem.measures(jax.tree.map(lambda leaf: leaf[0], params), train, test)
    return {name: value[None] for name, value in values.items()}


def _over_runs(
    function: Callable[..., Any], width: int, in_axes: tuple[int | None, ...]
) -> Callable[..., Any]:
    """Map over runs; a single one is not vectorized, because `lax.cond` is a branch only then."""
    if width > 1:
        return jax.vmap(function, in_axes)

    def of_one(*arguments: Any) -> Any:
        taken = [
            argument if axis is None else jax.tree.map(lambda leaf: leaf[0], argument)
            for argument, axis in zip(arguments, in_axes, strict=True)
        ]
        return jax.tree.map(lambda leaf: leaf[None], function(*taken))

    return of_one
