"""Reports of what runs recorded: an interactive page and a picture."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from ..recording import Recording
from ..settings import output_folder
from .page import Group, page
from .quantities import draw
from .sources import load

PAGE, PICTURE = "view.html", "view.png"


def view(paths: Sequence[Path], out: str | None, say: Callable[[str], None]) -> None:
    """Write the report of some runs, in place of an earlier one.

    Args:
      paths: what `sources.load` can read.
      out: folder of the report, or None for that of the first path.
      say: called with lines of text: warnings, and what was written.

    Raises:
      UsageError: if there is nothing to show, or the folder cannot be written to.
    """
    runs = load(paths)
    first = paths[0]
    folder = output_folder(out or str(first if first.is_dir() else first.parent))
    for run in runs:
        if run.note:
            say(f"{run.name}: {run.note}")
    groups = _groups(runs)
    target = folder / PAGE
    text = page(groups, f"mekax {importlib.metadata.version('mekax')}")
    target.write_text(text, encoding="utf-8")
    from .picture import picture  # imports matplotlib

    pictures = [picture(group, folder / name) for group, name in _named(groups)]
    say(f"Report: {target} (open it in a browser), {', '.join(map(str, pictures))}")


def _groups(runs: Sequence[Recording]) -> list[Group]:
    names = dict.fromkeys(run.group for run in runs)
    together = [(name, [run for run in runs if run.group == name]) for name in names]
    return [Group(name, members, draw(members)) for name, members in together]


def _named(groups: Sequence[Group]) -> list[tuple[Group, str]]:
    """Each group with the name of its picture."""
    if len(groups) == 1:
        return [(groups[0], PICTURE)]
    named = []
    for number, group in enumerate(groups, start=1):
        safe = re.sub(r"[^\w-]+", "-", group.name).strip("-") or str(number)
        named.append((group, f"view-{safe}.png"))
    return named
