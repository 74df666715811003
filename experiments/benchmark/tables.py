"""Tables of a benchmark, for the terminal and for a document: the same cells of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from rich.table import Table

from ..intervals import Interval
from . import overall
from .methods import ABLATIONS, OURS, REFERENCE
from .summary import CellSummary, Row


class Text(NamedTuple):
    """A table as text.

    Attributes:
      title: above it.
      headings: of the columns; the first column is one of names.
      lines: cells of text.
    """

    title: str
    headings: tuple[str, ...]
    lines: list[tuple[str, ...]]


def of_suite(cells: Sequence[CellSummary]) -> Text:
    """One line per optimizer: medians and shares over the cells."""
    lines = [
        (
            one.label,
            str(one.cells),
            _number(one.to_default),
            _number(one.to_adam),
            _number(one.to_best),
            _share(one.near_adam),
            _number(one.test_to_adam),
            _number(one.equal_time),
            _number(one.time_to_target),
            _number(one.time_with_sweep),
            _number(one.seconds),
            f"{one.diverged}/{one.runs}" if one.diverged else "–",
        )
        for one in overall.overall(cells)
    ]
    headings = (
        "optimizer",
        "cells",
        "÷ Adam 1e-3",
        "÷ best Adam",
        "÷ best",
        "≤ 1.1 Adam",
        "test ÷ Adam",
        "equal time",
        "time",
        "with sweep",
        "s/step",
        "diverged",
    )
    return Text("suite, medians over the cells", headings, lines)


def of_wins(cells: Sequence[CellSummary]) -> Text | None:
    """Share of cells won against each peer; None without peers or ours."""
    found = overall.wins(cells)
    if not found:
        return None
    peers = tuple(next(iter(found.values())))
    lines = [
        (label, *(_share(won[p]) if p in won else "–" for p in peers))
        for label, won in found.items()
    ]
    return Text("share of cells won, by final train loss", ("against", *peers), lines)


def of_ablations(cells: Sequence[CellSummary]) -> Text | None:
    """Final train loss of each variation over that of ours, by cell; None if there are none."""
    labels = dict.fromkeys(
        row.label for cell in cells for row in cell.rows.values() if row.method in ABLATIONS
    )
    lines = [
        (label, *(_interval(overall.to_ours(cell, label)) for cell in cells)) for label in labels
    ]
    if not lines:
        return None
    title = "variations: final train loss ÷ that of ours"
    return Text(title, ("variation", *(cell.name for cell in cells)), lines)


def of_finals(cells: Sequence[CellSummary], on_test: bool = False) -> Text:
    """One line per cell: the final train or test loss, or test accuracy, of Adam and of ours."""
    labels = dict.fromkeys(
        row.label
        for cell in cells
        for row in cell.rows.values()
        if row.method in (REFERENCE, *OURS)
    )

    def final(cell: CellSummary, label: str) -> str:
        row, measure = cell.rows.get(label), _on_test(cell) if on_test else "train_loss"
        if row is None:
            return "–"
        return _interval(row.final(measure), percent=measure == "test_accuracy") + _diverged(row)

    lines = [(cell.name, *(final(cell, label) for label in labels)) for cell in cells]
    title = "in the end, on test data" if on_test else "final train loss"
    return Text(title, ("cell", *labels), lines)


def of_cell(cell: CellSummary) -> Text:
    """One line per optimizer: what it came to on one cell."""
    test = _on_test(cell).removeprefix("test_")
    lines = []
    for row in cell.rows.values():
        compared = overall.against(cell, row)
        setting = " " + _setting(row) if row.tried > 1 else ""
        lines.append(
            (
                row.label + setting,
                _interval(row.final("train_loss")) + _diverged(row),
                _interval(row.final(f"test_{test}"), percent=test == "accuracy"),
                _interval(compared.to_default),
                _interval(compared.to_adam),
                _interval(compared.to_best),
                _number(compared.equal_time),
                _number(compared.time_to_target),
                _number(row.seconds),
            )
        )
    headings = (
        "optimizer",
        "train loss",
        f"test {test}",
        "÷ Adam 1e-3",
        "÷ best Adam",
        "÷ best",
        "equal time",
        "time",
        "s/step",
    )
    title = f"{cell.problem}, batch size {cell.batch_size}, {cell.steps} steps"
    return Text(title, headings, lines)


def rich_table(text: Text) -> Table:
    """For the terminal."""
    table = Table(title=text.title, title_justify="left", title_style="bold")
    for index, heading in enumerate(text.headings):
        table.add_column(heading, justify="right" if index else "left", no_wrap=not index)
    for line in text.lines:
        table.add_row(*line)
    return table


def markdown(text: Text) -> str:
    """For a document."""
    lines = [
        "| " + " | ".join(text.headings) + " |",
        "|---" + "|---:" * (len(text.headings) - 1) + "|",
        *("| " + " | ".join(line) + " |" for line in text.lines),
    ]
    return "\n".join(lines) + "\n"


def _on_test(cell: CellSummary) -> str:
    """What the cell is judged by."""
    measured = {name for row in cell.rows.values() for name in row.runs[0]["measures"]}
    return "test_accuracy" if "test_accuracy" in measured else "test_loss"


def _setting(row: Row) -> str:
    from .methods import SCHEDULES

    return f"{row.setting['rate']:g} {SCHEDULES[int(row.setting['schedule'])]}"


def _diverged(row: Row) -> str:
    return f", {row.diverged} of {len(row.runs)} diverged" if row.diverged else ""


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞"
    return f"{value:.3g}"


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.0f} %"


def _interval(interval: Interval | None, percent: bool = False) -> str:
    if interval is None or math.isnan(interval.mean):
        return "–"
    mean, low, high = ((f"{100 * x:.1f}" if percent else _number(x)) for x in interval)
    unit = " %" if percent else ""
    return mean + unit if low == high else f"{mean}{unit} [{low}, {high}]"
