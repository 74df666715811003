"""What it costs to record the metrics of every step of a small MLP."""

import itertools
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import pandas as pd

from ...optimizers import metrics
from .. import Recorder
from .steps import STEPS, mlp
from .timing import clock, in_turns

_BATCH = 128
_WARM = 40  # steps, after which what an optimizer does repeats


def measure(quick: bool, rounds: int) -> pd.DataFrame:
    """Least milliseconds of a step, recorded or not, and of a record while the device is idle."""
    model, step = mlp(64), STEPS["adameka, value given"]
    batch, start = model.batch(_BATCH), jax.jit(partial(step.start, model))
    compiled = jax.jit(partial(step.make, model), donate_argnums=0)

    carry = start()

    def training(watch: Callable[[Any], None]) -> Callable[[int], Any]:
        """What goes on with the training, by so many steps, and shows each state to a function.

        Both clocks take turns at one training: how much a step measures depends on where it is.
        """

        def run(count: int) -> Any:
            nonlocal carry
            for _ in range(count):
                carry = compiled(carry, batch)
                watch(carry[1])
            return carry

        return run

    training(lambda state: None)(_WARM)
    with tempfile.TemporaryDirectory() as folder:
        path, numbers = Path(folder) / "run.jsonl", itertools.count()
        with Recorder(path) as recorder:

            def write(state: Any) -> None:
                recorder.write(next(numbers), metrics(state))

            _, idle, _ = start()
            clocks = {
                "milliseconds": clock(training(lambda state: None)),
                "milliseconds_recorded": clock(training(write)),
                "milliseconds_of_writing": clock(lambda n: [write(idle) for _ in range(n)]),
            }
            least = 1e3 * in_turns(clocks, rounds).min()
        size = {"parameters": model.parameters(), "batch_size": _BATCH}
        return pd.DataFrame([{**size, **least, "bytes": path.stat().st_size / next(numbers)}])
