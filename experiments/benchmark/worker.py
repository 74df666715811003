"""Further processes that work on a benchmark, each by itself."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .options import Options
from .store import Store, Unit


@contextmanager
def workers(options: Options, count: int) -> Iterator[None]:
    """Let so many further processes take units while the block runs; end them with it."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_main, args=(options,), daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()  # its unit, if any, is unclaimed by that
            process.join()


def _main(options: Options) -> None:
    from .work import work

    parent = multiprocessing.parent_process()

    def progress(unit: Unit, part: float) -> None:
        if parent is not None and not parent.is_alive():
            sys.exit(1)  # nobody is left who waits for it, or could end it

    try:
        work(options, Store(options.out), progress, lambda unit: None)
    except KeyboardInterrupt:
        sys.exit(130)  # the first process says what there is to say
