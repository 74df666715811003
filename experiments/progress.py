"""What is shown while runs are going on: bars on a terminal, occasional lines elsewhere."""

from __future__ import annotations

import time
from typing import Protocol, Self

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

from .gauges import gauges
from .runs import Run
from .schedule import Budget

_LINE_SECONDS = 10.0  # between lines where there is no terminal
_MEASURES = {"train_loss": "train loss", "test_accuracy": "test accuracy", "test_loss": "test loss"}


class Display(Protocol):
    """A context in which runs are shown."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...
    def note(self, text: str) -> None:
        """Show what is going on before or between runs."""
        ...

    def update(self, run: Run, budget: Budget) -> None:
        """Show how far a run is."""
        ...

    def say(self, text: str) -> None:
        """Leave one line about something that the user should know."""
        ...

    def end(self, run: Run) -> None:
        """Leave one line about a run that is over."""
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

    def update(self, run: Run, budget: Budget) -> None:
        self._show(title(run), budget.fraction(run.steps, run.seconds), accuracy(run))
        self._live.update(Group(self._progress, gauges(run)))

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def end(self, run: Run) -> None:
        self._clear()
        self._console.print(outcome(run), highlight=False)

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
        self._sometimes(text)

    def update(self, run: Run, budget: Budget) -> None:
        percent = 100 * budget.fraction(run.steps, run.seconds)
        self._sometimes(f"{title(run)}: {percent:.0f} %, {live(run)}")

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def end(self, run: Run) -> None:
        self._console.print(outcome(run), highlight=False)
        self._last = time.monotonic()

    def _sometimes(self, text: str) -> None:
        if time.monotonic() - self._last >= _LINE_SECONDS:
            self._console.print(text, highlight=False)
            self._last = time.monotonic()


def title(run: Run) -> str:
    """Which run this is."""
    return f"{run.problem} · {run.spec.label} · seed {run.seed}"


def live(run: Run) -> str:
    """The newest numbers of a run: batch loss, test measure, step size, noise, refusals."""
    newest = {name: values[-1] for name, values in run.chunks[-1].items()} if run.chunks else {}
    parts = [f"loss {newest['loss']:.4f}"] if newest else []
    parts += filter(None, [accuracy(run)])
    if "step_size" in newest:
        parts.append(f"step size {newest['step_size']:.2g}")
    if "snr" in newest:
        parts.append(f"signal-to-noise {newest['snr']:.2g}")
    if newest.get("num_rejected"):
        parts.append(f"{newest['num_rejected']:.0f} rejected")
    return ", ".join(parts)


def accuracy(run: Run) -> str:
    """The newest test accuracy, if there is any."""
    if run.evaluations and "test_accuracy" in run.evaluations[-1].values:
        return f"test accuracy {run.evaluations[-1].values['test_accuracy']:.2%}"
    return ""


def outcome(run: Run) -> str:
    """One line about a run that is over."""
    parts = [] if run.status == "finished" else [run.status]
    if run.evaluations and run.status != "diverged":
        values = run.evaluations[-1].values
        for name, words in _MEASURES.items():
            if name in values and not (name == "test_loss" and "test_accuracy" in values):
                number = values[name]
                text = f"{number:.2%}" if name.endswith("accuracy") else f"{number:.4f}"
                parts.append(f"{words} {text}")
    parts.append(f"{run.steps:,} steps in {run.seconds:.1f} s")
    return f"{title(run)}: {', '.join(parts)}"
