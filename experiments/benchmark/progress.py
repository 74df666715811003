"""What is shown while a benchmark goes on: a bar on a terminal, a line per unit elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .store import Unit


class Display:
    """Counts the units that are finished, whichever process did them."""

    def __init__(self, console: Console, total: int, finished: Callable[[], int]):
        self._console, self._total, self._finished = console, total, finished
        self._begin, self._earlier = time.monotonic(), finished()
        self._bar = Progress(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=total, completed=self._earlier, left="")

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bar while the block runs."""
        with self._bar:
            yield

    def update(self, unit: Unit, part: float) -> None:
        """Show what this process is doing."""
        self._refresh(f"{unit.name} {part:.0%}")

    def wait(self) -> None:
        """Show that others are doing the rest."""
        self._refresh("waiting for other processes")

    def done(self, unit: Unit) -> None:
        """Leave a line about a unit that this process has finished."""
        count = self._finished()
        self._console.print(
            f"{unit.name}: done ({count} of {self._total}{self._left(count)})", highlight=False
        )

    def _refresh(self, text: str) -> None:
        if self._console.is_terminal:  # counting reads the folder
            count = self._finished()
            self._bar.update(self._task, description=text, completed=count, left=self._left(count))

    def _left(self, count: int) -> str:
        """Time left at the speed so far, all units taken for equally long."""
        new = count - self._earlier
        if new <= 0 or count >= self._total:
            return ""
        minutes = (time.monotonic() - self._begin) / new * (self._total - count) / 60
        return f", about {max(minutes, 1):.0f} min left"
