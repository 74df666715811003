"""Time, memory, compile time and size of a compiled training step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .cases import Case
from .contenders import REFERENCE, Carry, contender

_SECONDS = 0.05  # that one measurement takes, at least
_LEAST_ROUNDS = 3
_PATIENCE = 8.0  # seconds after which a contender is not measured any more
PERIOD = 10  # steps after which what a method does repeats; 40 of them are past its beginning


@dataclass(frozen=True)
class Compiled:
    """A training loop, ready to be timed.

    Attributes:
      seconds: measures the seconds per step at its steady pace, anew at each call.
      compile_seconds: of the loop, tracing included.
      stablehlo_lines: of the loop, before XLA optimizes it.
      memory: bytes that it needs by XLA's account: arguments, results and temporaries, donated
        ones counted once; None where the device does not say.
    """

    seconds: Callable[[], float]
    compile_seconds: float
    stablehlo_lines: int
    memory: int | None


def compile_loop(case: Case, batch_size: int, name: str) -> Compiled:
    """Compile the training of a case by a contender, warm it up, and choose how long to time it."""
    init, step = contender(name)(case)
    params = case.init(jax.random.key(0))
    batch = case.batch(batch_size)

    def run(carry: Carry, batch: Any, count: jax.Array) -> Carry:
        return jax.lax.fori_loop(0, count, lambda _, carry: step(carry, batch), carry)

    def start() -> Carry:
        fresh = jax.tree.map(jnp.copy, params)
        return fresh, init(fresh), jnp.zeros(())

    begin = time.perf_counter()
    lowered = jax.jit(run, donate_argnums=0).lower(start(), batch, jnp.int32(1))
    program = lowered.compile()
    compile_seconds = time.perf_counter() - begin
    stablehlo_lines = lowered.as_text().count("\n")
    state = [jax.block_until_ready(program(start(), batch, jnp.int32(4 * PERIOD)))]

    def seconds(count: int) -> float:
        begin = time.perf_counter()
        state[0] = jax.block_until_ready(program(state[0], batch, jnp.int32(count)))
        return (time.perf_counter() - begin) / count

    count = PERIOD
    while count * seconds(count) < _SECONDS:
        count *= 2
    return Compiled(lambda: seconds(count), compile_seconds, stablehlo_lines, _memory(program))


def _memory(program: Any) -> int | None:
    analysis = program.memory_analysis()
    if analysis is None:
        return None
    return (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        - analysis.alias_size_in_bytes
    )


@dataclass(frozen=True)
class Measured:
    """What one contender costs on one case.

    Attributes:
      case: name of the case.
      parameters: their number.
      batch_size: examples per step.
      contender: its name.
      seconds: per step, median over the rounds.
      to_adam: the same relative to Adam's, median over the rounds of their ratio.
      low: lower quartile of that ratio.
      high: upper quartile of it.
      rounds: how often it was measured.
      compile_seconds: of the loop.
      compile_to_adam: the same relative to Adam's.
      stablehlo_lines: of the loop.
      lines_to_adam: the same relative to Adam's.
      memory: bytes that it needs, if known.
      memory_to_adam: relative to Adam's, if known.
      device_peak: bytes that the device says it needed at most, if it does.
    """

    case: str
    parameters: int
    batch_size: int
    contender: str
    seconds: float
    to_adam: float
    low: float
    high: float
    rounds: int
    compile_seconds: float
    compile_to_adam: float
    stablehlo_lines: int
    lines_to_adam: float
    memory: int | None
    memory_to_adam: float | None
    device_peak: int | None = None


def in_turns(case: Case, batch_size: int, names: Sequence[str], rounds: int) -> list[Measured]:
    """Measure contenders on a case, one after the other and over again.

    Whatever else the machine does then slows all of them; Adam is always among them.

    Args:
      case: the model.
      batch_size: examples per step.
      names: of the contenders.
      rounds: how often to measure each; those that take long are measured less, three times at
        least.
    """
    names = tuple(dict.fromkeys((REFERENCE, *names)))
    compiled = {name: compile_loop(case, batch_size, name) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    spent = dict.fromkeys(names, 0.0)
    for done in range(rounds):
        for name in names:
            if name == REFERENCE or done < _LEAST_ROUNDS or spent[name] < _PATIENCE:
                begin = time.perf_counter()
                times[name].append(compiled[name].seconds())
                spent[name] += time.perf_counter() - begin
    adam = compiled[REFERENCE]
    found = []
    for name in names:
        mine = np.array(times[name])
        low, middle, high = np.quantile(mine / times[REFERENCE][: len(mine)], (0.25, 0.5, 0.75))
        loop = compiled[name]
        found.append(
            Measured(
                case=case.name,
                parameters=case.parameters(),
                batch_size=batch_size,
                contender=name,
                seconds=float(np.median(mine)),
                to_adam=float(middle),
                low=float(low),
                high=float(high),
                rounds=len(mine),
                compile_seconds=loop.compile_seconds,
                compile_to_adam=loop.compile_seconds / adam.compile_seconds,
                stablehlo_lines=loop.stablehlo_lines,
                lines_to_adam=loop.stablehlo_lines / adam.stablehlo_lines,
                memory=loop.memory,
                memory_to_adam=loop.memory / adam.memory if loop.memory and adam.memory else None,
            )
        )
    return found
