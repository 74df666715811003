"""What a benchmark leaves: a summary for programs, a document and figures for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from .. import files
from . import figures, overall, tables
from .options import Options
from .summary import CellSummary, cell_summaries

SUMMARY, DOCUMENT = "summary.json", "benchmark.md"

_READING = """\
Losses are means over seeds with 95 % bootstrap intervals. `÷` columns are ratios of final train
losses, geometric means over paired seeds: below 1 is better than Adam at its default rate
(`÷ Adam 1e-3`), Adam at the best of its grid of rates and schedules (`÷ best Adam`), and the best
setting of all baselines together (`÷ best`). `≤ 1.1 Adam`: share of cells within a tenth of the
best Adam. `test ÷ Adam`: wrong answers, or the test loss, over the best Adam's. `equal time`:
train loss at the time when the best Adam ends, over its own; whoever is faster than Adam stops
at its last step. `time`: time to the best Adam's final train loss over Adam's time to it, ∞ if
never; `with sweep`: the same with all settings counted that were trained to find the row's and
Adam's. `s/step`: time of a step over that of Adam's. The best setting of a baseline is the one
with the lowest final train loss.
"""


def write(
    records: Sequence[Mapping[str, Any]],
    options: Options,
    console: Console,
    command: Sequence[str] = (),
) -> None:
    """Write everything into the folder and show the main tables.

    Args:
      records: contents of all units.
      options: of the benchmark.
      console: where to show the tables.
      command: the command line, for the record.
    """
    cells = cell_summaries(records)
    content = {
        "command": list(command),
        **options.record(),
        "device": files.device(),
        **overall.as_dict(cells),
    }
    files.write_json(options.out / SUMMARY, content)
    (options.out / "curves").mkdir(exist_ok=True)
    figures.draw_all(cells, options.out)
    (options.out / DOCUMENT).write_text(_document(cells, options), encoding="utf-8")
    for text in (tables.of_suite(cells), tables.of_wins(cells)):
        if text is not None:
            console.print(tables.rich_table(text))
    for sentence in sentences(cells):
        console.print(sentence, highlight=False, soft_wrap=True)
    console.print(f"Report: {options.out / DOCUMENT}", highlight=False, soft_wrap=True)


def sentences(cells: Sequence[CellSummary]) -> list[str]:
    """What no table says: whether our steps are of the right length, and what the sweeps cost."""
    found = []
    scales = overall.scales(cells)
    if scales:
        good = sum(one["ours_is_best_or_within_interval"] for one in scales.values())
        best = ", ".join(f"{name} × {one['best']:g}" for name, one in scales.items())
        found.append(
            f"Our step size is the best multiple of itself, or within the noise of it, in {good} "
            f"of {len(scales)} cells (best: {best})."
        )
    kinds = dict.fromkeys(kind for cell in cells for kind in cell.sweeps)
    for kind in kinds:
        swept = [cell.sweeps[kind] for cell in cells if kind in cell.sweeps]
        seconds = sum(one["seconds"] for one in swept)
        found.append(
            f"The sweep of {kind}: {swept[0]['settings']:.0f} settings, {seconds:,.0f} s in all."
        )
    return found


def _document(cells: Sequence[CellSummary], options: Options) -> str:
    parts = [
        f"# Benchmark of self-tuning, profile {options.profile}",
        _READING,
        "## Suite",
        tables.markdown(tables.of_suite(cells)),
    ]
    won = tables.of_wins(cells)
    if won is not None:
        parts += [f"### {won.title.capitalize()}", tables.markdown(won)]
    varied = tables.of_ablations(cells)
    if varied is not None:
        parts += [f"### {varied.title.capitalize()}", tables.markdown(varied)]
    for on_test in (False, True):
        finals = tables.of_finals(cells, on_test)
        parts += [f"### {finals.title.capitalize()}", tables.markdown(finals)]
    parts += [*sentences(cells)]
    if any(cell.best_baseline for cell in cells):
        parts.append("![ratios](ratios.png)")
    for cell in cells:
        parts += [
            f"## {tables.of_cell(cell).title}",
            tables.markdown(tables.of_cell(cell)),
            f"![curves](curves/{cell.name}.png)",
        ]
    return "\n\n".join(part.strip() for part in parts) + "\n"
