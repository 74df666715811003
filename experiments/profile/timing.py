"""Time, memory, compile time and size of compiled training steps, measured in turns."""

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from .steps import MODELS, STEPS, Carry, Model, mlp

Clock = Callable[[], float]  # seconds per step, measured anew at each call

_SECONDS = 0.05  # that one measurement takes, at least
_LEAST_ROUNDS = 3
_PATIENCE = 8.0  # seconds after which a clock is not read any more
_PERIOD = 10  # steps after which what an optimizer does repeats; 40 of them are past its beginning


class Part(NamedTuple):
    """Optimizers on one model, Adam first; the width is that of an MLP of another size."""

    model: str
    batch_size: int
    optimizers: Sequence[str]
    width: int | None = None

    def load(self) -> Model:
        """The model."""
        return mlp(self.width) if self.width else MODELS[self.model]


def clock(run: Callable[[int], Any], count: int = 1) -> Clock:
    """Choose how many steps to time at once; `run` makes so many, compiled and past its first."""

    def seconds() -> float:
        begin = time.perf_counter()
        jax.block_until_ready(run(count))
        return (time.perf_counter() - begin) / count

    while count * seconds() < _SECONDS:
        count *= 2
    return seconds


def in_turns(clocks: Mapping[Any, Clock], rounds: int) -> pd.DataFrame:
    """Seconds, a row for each round: read in turns, so that other load slows all of the clocks.

    All but the first are read less often if they take long, three times at least; the rest is NaN.
    """
    times = pd.DataFrame(np.nan, range(rounds), pd.Index(list(clocks)))
    spent = dict.fromkeys(clocks, 0.0)
    for done in range(rounds):
        for place, (name, read) in enumerate(clocks.items()):
            if place == 0 or done < _LEAST_ROUNDS or spent[name] < _PATIENCE:
                begin = time.perf_counter()
                times.iloc[done, place] = read()
                spent[name] += time.perf_counter() - begin
    return times


def quartiles(name: str, ratios: pd.DataFrame) -> pd.DataFrame:
    """Columns `low`, that name (the median) and `high`, of the columns of some ratios.

    Example:
      >>> quartiles("to_adam", pd.DataFrame({"sgd": [1.0, 3.0, 2.0, np.nan]}))
           low  to_adam  high
      sgd  1.5      2.0   2.5
    """
    return ratios.quantile([0.25, 0.5, 0.75]).set_axis(["low", name, "high"]).T


def compile_loop(part: Part, optimizer: str) -> tuple[Clock, dict[str, float]]:
    """Compile a training and make its first steps; its clock, and what its program takes.

    That is `compile_seconds`, tracing included; `stablehlo_lines`, before XLA optimizes them; and
    `memory` by XLA's account, in bytes, donated ones counted once, NaN where it does not say.
    """
    model, step = part.load(), STEPS[optimizer]
    carry, batch = jax.jit(lambda: step.start(model))(), model.batch(part.batch_size)

    def loop(carry: Carry, batch: Any, count: jax.Array) -> Carry:
        return jax.lax.fori_loop(0, count, lambda _, c: step.make(model, c, batch), carry)

    begin = time.perf_counter()
    lowered = jax.jit(loop, donate_argnums=0).lower(carry, batch, jnp.int32(1))
    program = lowered.compile()
    size = {
        "compile_seconds": time.perf_counter() - begin,
        "stablehlo_lines": lowered.as_text().count("\n"),
        "memory": np.nan,
    }
    if (used := program.memory_analysis()) is not None:
        results = used.output_size_in_bytes - used.alias_size_in_bytes
        size["memory"] = used.argument_size_in_bytes + results + used.temp_size_in_bytes

    def run(count: int) -> Carry:
        nonlocal carry
        carry = program(carry, batch, jnp.int32(count))
        return carry

    run(4 * _PERIOD)
    return clock(run, _PERIOD), size


def measure(part: Part, rounds: int) -> pd.DataFrame:
    """Measure the optimizers of a part, a row for each.

    `seconds` per step are the median over the rounds; they, and what `compile_loop` tells, are
    also there relative to Adam's, as `..._to_adam`, `seconds_to_adam` with quartiles.
    """
    compiled = {name: compile_loop(part, name) for name in part.optimizers}
    times = in_turns({name: seconds for name, (seconds, _) in compiled.items()}, rounds)
    sizes = pd.DataFrame.from_dict({name: size for name, (_, size) in compiled.items()}, "index")
    common = {
        "model": part.model,
        "parameters": part.load().parameters(),
        "batch_size": part.batch_size,
        "device_peak": np.nan,
    }
    measured = pd.DataFrame(common, sizes.index).join(
        [
            pd.DataFrame({"rounds": times.count(), "seconds": times.median()}),
            quartiles("seconds_to_adam", times.div(times["adam"], axis=0)),
            sizes,
            (sizes / sizes.loc["adam"]).add_suffix("_to_adam"),
        ]
    )
    return measured.rename_axis("optimizer").reset_index()


def device_peak(part: Part, optimizer: str) -> float:
    """The most bytes of the device that a training takes, in a process of its own; or NaN.

    A device never forgets the peak of its process: of two trainings the smaller cannot be told.
    A training that fails, as for lack of memory, raises RuntimeError.
    """
    if jax.default_backend() == "cpu":  # whose memory nobody counts
        return np.nan
    return in_new_process(peak_of_training, part, optimizer)


def peak_of_training(part: Part, optimizer: str) -> float:
    """Train, and tell the peak of this process."""
    # What another process holds of the device is out of reach; this one takes only what it needs.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    compile_loop(part, optimizer)[0]()
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", np.nan)


def in_new_process(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of a module where JAX has not started yet; exceptions come back as well."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()
