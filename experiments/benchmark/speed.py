"""Seconds per step of an optimizer, and of Adam beside it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..registry import OPTIMIZERS
from .suite import REFERENCE, Workload

if TYPE_CHECKING:
    import jax

    from .. import train
    from ..problem import Problem
    from ..registry import Optimizer

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

    from .. import train
    from ..data import batches

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
