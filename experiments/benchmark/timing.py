"""How long a step takes next to Adam's: measured in turns, so that a busy machine slows both."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..data_order import batches
from ..lanes import Carry, Method, one_step
from ..problems import Problem

_SECONDS = 0.05  # that one measurement takes, at least
_MOST_STEPS = 50_000
_BATCHES = 20  # that the steps go through, over and over
_PERIOD = 10  # steps after which what a method does repeats; 40 of them are past its beginning

Clock = Callable[[], float]  # seconds per step, measured anew at each call


def clock(problem: Problem, method: Method, setting: dict[str, float], batch_size: int) -> Clock:
    """Compile the steps of one lane, and return what times a few of them at their steady pace."""
    tx = method.build(setting, _MOST_STEPS)
    step = one_step(problem, tx)

    @jax.jit
    def run(carry: Carry, rows: jax.Array, count: jax.Array, data: Any) -> Carry:
        def body(index: jax.Array, carry: Carry) -> Carry:
            mine = rows[index % _BATCHES]
            return step(carry, jax.tree.map(lambda leaf: leaf[mine], data))[0]

        return jax.lax.fori_loop(0, count, body, carry)

    init_key, step_key = jax.random.split(jax.random.key(0))
    params = problem.init(init_key)
    carry = Carry(params, tx.init(params), step_key, jnp.zeros((), jnp.int32))
    rows = jnp.asarray(batches(0, 0, _BATCHES, problem.examples, batch_size))

    warm = run(carry, rows, jnp.int32(4 * _PERIOD), problem.data)  # compiles

    def seconds(count: int) -> float:
        begin = time.perf_counter()
        jax.block_until_ready(run(warm, rows, jnp.int32(count), problem.data))
        return (time.perf_counter() - begin) / count

    count = _PERIOD
    while count < _MOST_STEPS and count * seconds(count) < _SECONDS:
        count *= 2
    return lambda: seconds(count)


def in_turns(ours: Clock, reference: Clock, rounds: int) -> tuple[float, float]:
    """Least seconds per step of both: whatever else the machine does only adds.

    Args:
      ours: one clock.
      reference: the other.
      rounds: how often to measure each.
    """
    measured = [(ours(), reference()) for _ in range(rounds)]
    first, second = np.min(measured, axis=0)
    return float(first), float(second)
