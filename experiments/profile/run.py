"""`mekax profile`: measure table after table; what is measured is kept whatever happens next."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from . import TABLES, backpack, communication, recording, report, timing
from .steps import MODELS, TRAINING
from .timing import Part

_GROWING = ("adam", "adameka", "meka")
_PER_EXAMPLE = ("adam", "meka", "meka, exact", "vmap(jvp(grad)), no step")
_CHUNKS = ("adam", *(f"meka, exact, chunks of {n}" for n in (8, 32, 128, 512)))
PARTS = {
    "models": [
        *(Part(model, 128, tuple(TRAINING)) for model in MODELS),
        *(Part(model, n, ("adam", "sgd", *_GROWING[1:])) for model in MODELS for n in (32, 512)),
    ],
    "parameters": [
        Part("mlp", 128, (*_GROWING, "adam, update alone", "adameka, update alone"), width)
        for width in (12, 100, 630, 2800)  # 10⁴ to 10⁷ parameters
    ],
    "batch": [Part("mlp", n, _GROWING, 64) for n in (8, 32, 128, 512, 2048)],
    "per example": [
        Part("mlp", 128, _PER_EXAMPLE, 64),
        Part("mlp", 128, _PER_EXAMPLE),
        Part("cnn", 128, _PER_EXAMPLE),
    ],
    "chunks": [Part("mlp", 512, _CHUNKS, 64)],
}
OTHERS = {
    "BackPACK": backpack.measure,
    "recording": recording.measure,
    "communication": communication.measure,
}
Say = Callable[[str], None]


def profile(
    out: Path,
    *,
    console: Console,
    command: Sequence[str],
    tables: Sequence[str],
    quick: bool,
    rounds: int,
) -> bool:
    """Measure some of `TABLES`, or all; write tables, numbers and a picture into a folder.

    If quick, something small for each, to see that all works. The result is whether all was
    measured: False after an interrupt.
    """

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    results: dict[str, pd.DataFrame] = {}
    try:
        for table in dict.fromkeys(tables or TABLES):
            for measured in _measure(table, quick, rounds, say):
                results[table] = measured
                report.write(results, out, command)
    except KeyboardInterrupt:
        say(f"Interrupted: what was measured is in {out}.")
        return False
    report.draw(results, out)
    say(report.document(results))
    return True


def _measure(table: str, quick: bool, rounds: int, say: Say) -> Iterator[pd.DataFrame]:
    """The rows so far, each time there is something new."""
    if table in OTHERS:
        say(table)
        try:
            yield OTHERS[table](quick, rounds)
        except RuntimeError as error:
            say(f"{table} was not measured: {_last_line(error)}")
        return
    frames = []
    for part in quick_parts(table) if quick else PARTS[table]:
        say(f"{table}: {part.model}, batch {part.batch_size}")
        frames.append(new := timing.measure(part, rounds))
        yield pd.concat(frames)  # before the peaks, which take a process each
        for row, optimizer in new.optimizer.items():
            try:
                new.loc[row, "device_peak"] = timing.device_peak(part, optimizer)
            except RuntimeError as error:
                say(f"The peak of {optimizer} was not measured: {_last_line(error)}")
        yield pd.concat(frames)


def quick_parts(table: str) -> list[Part]:
    """Adam and the last optimizer of the table's first part, small.

    Example:
      >>> quick_parts("batch")
      [Part(model='mlp', batch_size=32, optimizers=('adam', 'meka'), width=12)]
    """
    return [Part("mlp", 32, ("adam", PARTS[table][0].optimizers[-1]), 12)]


def _last_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[-1]
