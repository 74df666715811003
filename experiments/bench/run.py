"""`mekax bench`: measure part after part; what is measured is kept whatever happens next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from . import backpack, cases, device_peak, report
from .measure import Measured, in_turns
from .plan import BACKPACK, Part, parts


def bench(
    out: Path,
    quick: bool,
    rounds: int,
    console: Console,
    command: Sequence[str],
    tables: Sequence[str] = (),
) -> bool:
    """Measure everything and report.

    Args:
      out: folder for tables and picture.
      quick: a few parts in seconds, to see that all works.
      rounds: how often to measure each contender.
      console: where to show progress and tables.
      command: the command line, for the record.
      tables: which to make, or all.

    Returns:
      Whether all was measured; False after an interrupt.
    """
    found: report.Found = {}
    todo = parts(quick, tables)
    try:
        for done, part in enumerate(todo):
            console.print(
                f"{part.table}: {part.case}, batch {part.batch_size} ({done + 1} of {len(todo)})",
                highlight=False,
            )
            case = cases.CASES[part.case]() if part.width is None else cases.mlp(part.width)
            measured = in_turns(case, part.batch_size, part.contenders, rounds)
            rows = found.setdefault(part.table, [])
            rows.extend(measured)
            report.write(found, out, command)  # before the peaks, which take a process each
            rows[-len(measured) :] = [_with_peak(part, one, console) for one in measured]
            report.write(found, out, command)
        if BACKPACK in tables or not (tables or quick):
            console.print(f"{BACKPACK}: {backpack.found_or_missing()}", highlight=False)
            if backpack.installed():
                found[BACKPACK] = backpack.in_turns(rounds)
                report.write(found, out, command)
    except KeyboardInterrupt:
        console.print(f"Interrupted: what was measured is in {out}.", highlight=False)
        return False
    report.draw(found, out)
    console.print(report.document(found), highlight=False, soft_wrap=True, markup=False)
    return True


def _with_peak(part: Part, measured: Measured, console: Console) -> Measured:
    try:
        return replace(measured, device_peak=device_peak.of_part(part, measured.contender))
    except RuntimeError as error:
        console.print(str(error), highlight=False, markup=False)
        return measured
