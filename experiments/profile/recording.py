"""What it costs to record the metrics of every step of a small MLP."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax

from ...optimizers import metrics
from .. import Recorder
from . import steps, workloads
from .timing import Row, clock, in_turns

_WIDTH, _BATCH = 64, 128


def measure(quick: bool, rounds: int) -> list[Row]:
    """Least milliseconds of a step, recorded or not, and of a record while the device is idle."""
    del quick
    workload, step = workloads.load("mlp", _WIDTH), steps.find("adameka, value given")
    batch = workload.batch(_BATCH)
    compiled = jax.jit(partial(step.make, workload), donate_argnums=0)

    def training(watch: Callable[[Any], None]) -> Callable[[int], Any]:
        """What makes so many steps, each of which shows its state to a function."""
        carry = step.start(workload)

        def run(count: int) -> Any:
            nonlocal carry
            for _ in range(count):
                carry = compiled(carry, batch)
                watch(carry[1])
            return carry

        run(1)  # compiles
        return run

    with tempfile.TemporaryDirectory() as folder:
        path, numbers = Path(folder) / "run.jsonl", itertools.count()
        with Recorder(path) as recorder:

            def write(state: Any) -> None:
                recorder.write(next(numbers), metrics(state))

            _, idle, _ = step.start(workload)
            clocks = {
                "milliseconds": clock(training(lambda state: None)),
                "milliseconds_recorded": clock(training(write)),
                "milliseconds_of_writing": clock(lambda n: [write(idle) for _ in range(n)]),
            }
            times = in_turns(clocks, rounds)
        size = path.stat().st_size / next(numbers)
    least = {name: 1e3 * min(seconds) for name, seconds in times.items()}
    return [{"parameters": workload.parameters(), "batch_size": _BATCH, **least, "bytes": size}]
