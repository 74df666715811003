"""What is shown while runs are going on: bars on a terminal, occasional lines elsewhere."""

from __future__ import annotations

import time
from typing import Protocol, Self

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from .records import Progress as Training
from .records import Records
from .view.terminal import metrics_table

_LINE_SECONDS = 10.0  # between lines where there is no terminal
_MEASURES = {"train_loss": "train loss", "test_accuracy": "test accuracy", "test_loss": "test loss"}


class Display(Protocol):
    """A context in which trainings are shown, under titles."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...
    def note(self, text: str) -> None:
        """Show what is going on before or between trainings."""
        ...

    def update(self, title: str, training: Training) -> None:
        """Show how far a training is."""
        ...

    def say(self, text: str) -> None:
        """Leave a line about something that the user should know."""
        ...


def display(console: Console) -> Display:
    """The display that suits the console."""
    return Bars(console) if console.is_terminal else Lines(console)


class Bars:
    """A bar that moves, and below it what the run records, as it grows."""

    def __init__(self, console: Console):
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[live]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._live = Live(self._progress, console=console, transient=True)
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        self._show(text, None, "")

    def update(self, title: str, training: Training) -> None:
        self._show(title, training.fraction, accuracy(training.measures()))
        self._live.update(Group(self._progress, metrics_table(training.series())))

    def say(self, text: str) -> None:
        self._clear()
        self._console.print(text, highlight=False, soft_wrap=True)

    def _show(self, description: str, fraction: float | None, text: str) -> None:
        total = None if fraction is None else 1.0
        if self._task is not None and self._progress.tasks[-1].total != total:
            self._clear()
        if self._task is None:
            self._task = self._progress.add_task(description, total=total, live=text)
        self._progress.update(
            self._task, description=description, completed=fraction or 0.0, live=text
        )

    def _clear(self) -> None:
        self._live.update(self._progress)
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


class Lines:
    """A line now and then, for logs."""

    def __init__(self, console: Console):
        self._console = console
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def note(self, text: str) -> None:
        if time.monotonic() - self._last >= _LINE_SECONDS:
            self.say(text)

    def update(self, title: str, training: Training) -> None:
        self.note(f"{title}: {100 * training.fraction:.0f} %, {live(training)}")

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)
        self._last = time.monotonic()


def live(training: Training) -> str:
    """The newest numbers: batch loss, test accuracy, step size, noise, rejected batches."""
    newest = training.newest()
    parts = [f"loss {newest['loss']:.4f}"] if newest else []
    parts += filter(None, [accuracy(training.measures())])
    if "step_size" in newest:
        parts.append(f"step size {newest['step_size']:.2g}")
    if "snr" in newest:
        parts.append(f"signal-to-noise {newest['snr']:.2g}")
    if newest.get("num_rejected"):
        parts.append(f"{newest['num_rejected']:.0f} rejected")
    return ", ".join(parts)


def accuracy(measures: dict[str, float]) -> str:
    """The newest test accuracy, if there is any."""
    return f"test accuracy {measures['test_accuracy']:.2%}" if "test_accuracy" in measures else ""


def outcome(title: str, records: Records) -> str:
    """A line about a single run that is over."""
    (status,) = records.status
    parts = [] if status == "finished" else [status]
    if status != "diverged":
        for name, words in _MEASURES.items():
            column = records.evaluations.get(name, np.empty(0))
            if column.size and not (name == "test_loss" and "test_accuracy" in records.evaluations):
                text = f"{column[-1]:.2%}" if name.endswith("accuracy") else f"{column[-1]:.4f}"
                parts.append(f"{words} {text}")
    seconds = records.steps["seconds"][-1] if records.steps else 0.0
    steps = records.steps["step"][-1] if records.steps else 0
    return f"{title}: {', '.join([*parts, f'{steps:,} steps in {seconds:.1f} s'])}"
