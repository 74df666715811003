"""Reports of what runs recorded: an interactive page and a picture."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Sequence
from pathlib import Path


def view(paths: Sequence[Path], out: str | None, say: Callable[[str], None]) -> None:
    """Write the report of some runs, in place of an earlier one.

    Args:
      paths: what `sources.load` can read.
      out: folder of the report, or None for that of the first path.
      say: called with lines of text: warnings, and what was written.

    Raises:
      UsageError: if there is nothing to show, or the folder cannot be written to.
    """
    from ..errors import output_folder
    from .sources import load

    runs = load(paths)
    first = paths[0]
    folder = output_folder(out or str(first if first.is_dir() else first.parent))
    for run in runs:
        if run.note:
            say(f"{run.name}: {run.note}")
    from .page import group, page  # these import plotly and matplotlib
    from .picture import picture

    groups = group(runs)
    target = folder / "view.html"
    text = page(groups, f"mekax {importlib.metadata.version('mekax')}")
    target.write_text(text, encoding="utf-8", newline="\n")  # as the scripts were hashed
    pictures = []
    for one in groups:
        safe = re.sub(r"[^\w-]+", "-", one.name).strip("-") or "other"
        name = "view.png" if len(groups) == 1 else f"view-{safe}.png"
        pictures.append(picture(one, folder / name))
    say(f"Report: {target} (open it in a browser), {', '.join(map(str, pictures))}")
