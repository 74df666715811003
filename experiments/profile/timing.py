"""Time, memory, compile time and size of compiled training steps, measured in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import steps, workloads
from .parts import Part
from .process import in_new_process

Clock = Callable[[], float]  # seconds per step, measured anew at each call
Row = dict[str, Any]

_SECONDS = 0.05  # that one measurement takes, at least
_LEAST_ROUNDS = 3
_PATIENCE = 8.0  # seconds after which a clock is not read any more
_PERIOD = 10  # steps after which what an optimizer does repeats; 40 of them are past its beginning


def clock(run: Callable[[int], Any], count: int = 1) -> Clock:
    """Choose how many steps to time at once; `run` makes so many, compiled and past its first."""

    def seconds() -> float:
        begin = time.perf_counter()
        jax.block_until_ready(run(count))
        return (time.perf_counter() - begin) / count

    while count * seconds() < _SECONDS:
        count *= 2
    return seconds


def in_turns(clocks: Mapping[str, Clock], rounds: int) -> dict[str, list[float]]:
    """Read clocks one after the other and over again, so that other load slows all of them.

    All but the first are read less often if they take long, three times at least.
    """
    first = next(iter(clocks))
    times: dict[str, list[float]] = {name: [] for name in clocks}
    spent = dict.fromkeys(clocks, 0.0)
    for done in range(rounds):
        for name, read in clocks.items():
            if name == first or done < _LEAST_ROUNDS or spent[name] < _PATIENCE:
                begin = time.perf_counter()
                times[name].append(read())
                spent[name] += time.perf_counter() - begin
    return times


def ratio(name: str, times: Sequence[float], reference: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of what each round took relative to the same round of another.

    Example:
      >>> ratio("to_adam", [1.0, 3.0, 2.0], [1.0, 1.0, 1.0, 1.0])
      {'low': 1.5, 'to_adam': 2.0, 'high': 2.5}
    """
    quartiles = np.quantile(np.divide(times, reference[: len(times)]), (0.25, 0.5, 0.75))
    return dict(zip(("low", name, "high"), quartiles.tolist(), strict=True))


def compile_loop(part: Part, optimizer: str) -> tuple[Clock, Row]:
    """Compile a training, and make its first steps.

    Returns:
      Its clock; and `compile_seconds`, tracing included, `stablehlo_lines` before XLA optimizes
      it, and `memory`, the bytes that it needs by XLA's account: arguments, results and
      temporaries, donated ones counted once; NaN where the device does not say.
    """
    workload, step = workloads.load(part.model, part.width), steps.find(optimizer)
    carry, batch = step.start(workload), workload.batch(part.batch_size)

    def loop(carry: steps.Carry, batch: Any, count: jax.Array) -> steps.Carry:
        return jax.lax.fori_loop(0, count, lambda _, c: step.make(workload, c, batch), carry)

    begin = time.perf_counter()
    lowered = jax.jit(loop, donate_argnums=0).lower(carry, batch, jnp.int32(1))
    program = lowered.compile()
    compile_seconds = time.perf_counter() - begin

    def run(count: int) -> steps.Carry:
        nonlocal carry
        carry = program(carry, batch, jnp.int32(count))
        return carry

    run(4 * _PERIOD)
    return clock(run, _PERIOD), {
        "compile_seconds": compile_seconds,
        "stablehlo_lines": lowered.as_text().count("\n"),
        "memory": _memory(program.memory_analysis()),
    }


def _memory(used: Any) -> float:
    if used is None:
        return np.nan
    sizes = (used.argument_size_in_bytes, used.output_size_in_bytes, used.temp_size_in_bytes)
    return sum(sizes) - used.alias_size_in_bytes


def measure(part: Part, rounds: int) -> list[Row]:
    """Measure the optimizers of a part, and Adam with them.

    Returns:
      A row for each: `seconds` per step, the median over the rounds, and what `compile_loop`
      tells, all of them also relative to Adam's as `..._to_adam`; `low` and `high` are quartiles
      of `seconds_to_adam`.
    """
    names = dict.fromkeys((steps.REFERENCE, *part.optimizers))
    compiled = {name: compile_loop(part, name) for name in names}
    times = in_turns({name: seconds for name, (seconds, _) in compiled.items()}, rounds)
    adam = compiled[steps.REFERENCE][1]
    common = {
        "model": part.model,
        "parameters": workloads.load(part.model, part.width).parameters(),
        "batch_size": part.batch_size,
        "device_peak": np.nan,
    }
    return [
        {
            **common,
            "optimizer": name,
            "rounds": len(times[name]),
            "seconds": float(np.median(times[name])),
            **ratio("seconds_to_adam", times[name], times[steps.REFERENCE]),
            **size,
            **{f"{key}_to_adam": size[key] / adam[key] for key in size},
        }
        for name, (_, size) in compiled.items()
    ]


def device_peak(part: Part, optimizer: str) -> float:
    """The most bytes of the device that a training takes, in a process of its own; or NaN.

    A device knows the peak since its process began and never forgets it: of two trainings in one
    process the smaller cannot be told.

    Raises:
      RuntimeError: if the training failed, for example for lack of memory.
    """
    if jax.default_backend() == "cpu":  # whose memory nobody counts
        return np.nan
    # What this process holds of the device is out of reach; the other takes only what it needs.
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return in_new_process(peak_of_training, part, optimizer, environment=environment)


def peak_of_training(part: Part, optimizer: str) -> float:
    """Train, and tell the peak of this process."""
    compile_loop(part, optimizer)[0]()
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", np.nan)
