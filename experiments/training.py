"""Training one problem with one optimizer: the clock, the order of the data, the record."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from .checkpoints import Checkpoints
from .data_order import batches
from .problems import Problem
from .program import CHUNK, Carry, Program
from .runs import Evaluation, Run
from .schedule import Budget

PyTree = Any
_CHUNK_SECONDS = 0.3  # time between looks at the clock, roughly


def train(
    run: Run,
    problem: Problem,
    program: Program,
    budget: Budget,
    watch: Callable[[], None] = lambda: None,
    checkpoints: Checkpoints | None = None,
) -> PyTree:
    """Train until the budget is spent or the loss is no longer finite, recording into `run`.

    The clock runs during training steps only. Interrupted, `run` holds all that was recorded.

    Args:
      run: a fresh record.
      problem: what to minimize.
      program: made for the problem and the kind of optimizer of `run`.
      budget: when to stop and when to evaluate.
      watch: called whenever `run` has grown.
      checkpoints: where the run continues from, and is kept now and then; or None.

    Returns:
      The parameters at the end.
    """
    carry = program.start(run.seed, run.spec.learning_rate)
    if checkpoints:
        carry = checkpoints.restore(run, carry)
    if not run.evaluations:
        _evaluate(run, problem, carry)
    while run.status == "running":
        watch()
        # The first step tells how long a step takes.
        affordable = int(_CHUNK_SECONDS * run.steps / run.seconds) if run.steps else 1
        length = max(1, min(CHUNK, budget.steps_to_next_look(run.steps), affordable))
        rows = batches(run.seed, run.steps, length, problem.examples, program.batch_size)
        clock = time.perf_counter()
        carry, records = jax.block_until_ready(program.advance(carry, rows))
        elapsed = time.perf_counter() - clock
        chunk = {name: np.asarray(values) for name, values in records.items()}
        chunk["seconds"] = run.seconds + elapsed * np.arange(1, length + 1) / length
        run.add(chunk)
        if not np.isfinite(chunk["loss"]).all():
            run.status = "diverged"
            break
        done = budget.is_spent(run.steps, run.seconds)
        if done or budget.is_due(run.steps, run.seconds, run.evaluations[-1]):
            _evaluate(run, problem, carry)
        if done and run.status == "running":
            run.status = "finished"
        if checkpoints and run.status == "running":
            checkpoints.offer(run, carry)
    watch()
    return carry.params


def _evaluate(run: Run, problem: Problem, carry: Carry) -> None:
    values = problem.evaluate(carry.params)
    run.evaluations.append(Evaluation(run.steps, run.seconds, values))
    if not np.isfinite(values["train_loss"]):
        run.status = "diverged"
