"""The names of the reproductions: adding one is adding a file and a line here."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Entry:
    """A reproduction.

    Attributes:
      description: one line.
      module: file in this folder with `run(out, quick, seeds) -> Reproduction`, which may draw
        figures into the folder `out`.
    """

    description: str
    module: str


REPRODUCTIONS = {
    "noisy-quadratic": Entry(
        "excess loss of the filter falls as 1/t where SGD stalls", "noisy_quadratic"
    ),
}


def default_folder(names: Sequence[str]) -> str:
    """Folder for results where none is named."""
    return f"results/{'+'.join(names)}-{datetime.now():%Y%m%d-%H%M%S}"


def run_all(
    names: Sequence[str],
    out: Path,
    quick: bool,
    seeds: int,
    console: Console,
    command: Sequence[str] = (),
) -> bool:
    """Run each, write its file as soon as it is done, and print its verdicts.

    Returns:
      Whether every claim of every reproduction holds.
    """
    from . import claims

    holds = True
    for name in names:
        module = importlib.import_module(f".{REPRODUCTIONS[name].module}", __package__)
        reproduction = module.run(out, quick, seeds)
        path = claims.write(name, reproduction, out, command)
        claims.show(name, reproduction, console)
        console.print(f"Results: {path}", highlight=False, soft_wrap=True)
        holds = holds and reproduction.holds
    return holds
