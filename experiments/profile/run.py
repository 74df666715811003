"""`mekax profile`: measure table after table; what is measured is kept whatever happens next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console

from . import TABLES, backpack, communication, recording, report, timing
from .parts import parts

OTHERS = {
    "BackPACK": backpack.measure,
    "recording": recording.measure,
    "communication": communication.measure,
}


def profile(
    out: Path,
    *,
    console: Console,
    command: Sequence[str] = (),
    tables: Sequence[str] = (),
    quick: bool = False,
    rounds: int = 20,
) -> bool:
    """Measure, and write tables, numbers and a picture.

    Args:
      out: their folder, which exists.
      console: where to show progress and tables.
      command: the command line, for the record.
      tables: which to make, of `TABLES`; without any, all.
      quick: something small for each table, to see that all works.
      rounds: how often to measure each optimizer.

    Returns:
      Whether all was measured; False after an interrupt.
    """

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    results: dict[str, list[timing.Row]] = {}
    try:
        for table in (name for name in TABLES if not tables or name in tables):
            for rows in _measure(table, quick, rounds, say):
                results[table] = rows
                report.write(results, out, command)
    except KeyboardInterrupt:
        say(f"Interrupted: what was measured is in {out}.")
        return False
    report.draw(results, out)
    say(report.document(results))
    return True


def _measure(
    table: str, quick: bool, rounds: int, say: Callable[[str], None]
) -> Iterator[list[timing.Row]]:
    """The rows so far, each time there is something new."""
    if table in OTHERS:
        say(table)
        try:
            yield OTHERS[table](quick, rounds)
        except RuntimeError as error:
            say(f"{table} was not measured: {_last_line(error)}")
        return
    rows = []
    for part in parts(table, quick):
        say(f"{table}: {part.model}, batch {part.batch_size}")
        new = timing.measure(part, rounds)
        rows += new
        yield rows  # before the peaks, which take a process each
        for row in new:
            try:
                row["device_peak"] = timing.device_peak(part, row["optimizer"])
            except RuntimeError as error:
                say(f"The peak of {row['optimizer']} was not measured: {_last_line(error)}")
        yield rows


def _last_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[-1]
