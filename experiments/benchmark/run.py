"""`mekax benchmark`: everything that is not finished yet, then the report."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console

from .. import files
from . import report
from .options import Options
from .progress import Display
from .store import Store
from .work import units, work
from .worker import workers

_PAUSE = 1.0  # seconds between looks at what other processes have finished


def benchmark(options: Options, console: Console, command: Sequence[str] = ()) -> bool:
    """Do what is not finished, sharing it with other processes on the same folder, and report.

    Args:
      options: checked options.
      console: where to show progress and tables.
      command: the command line, for the record.

    Returns:
      Whether all units are finished; False after an interrupt, with what there is kept.

    Raises:
      UsageError: if the folder holds a benchmark of another kind.
    """
    store = Store(options.out)
    store.begin({**options.record(), "device": files.device()})
    todo = units(options)

    def finished() -> int:
        return sum(store.has(unit) for unit in todo)

    display = Display(console, len(todo), finished)
    left = len(todo) - finished()
    if 0 < left < len(todo):
        console.print(f"Continuing: {len(todo) - left} of {len(todo)} units are finished.")
    try:
        with display.shown(), workers(options, min(options.jobs, left) - 1):
            while finished() < len(todo):
                work(options, store, display.update, display.done)
                if finished() < len(todo):
                    display.wait()
                    time.sleep(_PAUSE)
    except KeyboardInterrupt:
        console.print(
            f"Interrupted: {finished()} of {len(todo)} units are finished and kept. To continue, "
            f"repeat the command with --out {options.out}.",
            highlight=False,
            soft_wrap=True,
        )
        return False
    with store.reporting():
        report.write([store.read(unit) or {} for unit in todo], options, console, command)
    return True
