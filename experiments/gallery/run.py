"""`mekax gallery`: train program after program; finished rows are kept whatever happens next."""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from ..results import device, versions, write_json
from . import ENTRIES
from .program import Program
from .training import ADAM, AVERAGE, OURS, THEIRS, Result, difference, train

NUMBERS, DOCUMENT = "gallery.json", "gallery.md"
_NOTE = (
    "Losses are of what each program judges, medians over the seeds; of adameka, the last iterate "
    "and the average. ms are of a step as theirs makes it; times without compiling. Lines are "
    "statements of our step that theirs does not have, and the one that makes the optimizer."
)


def gallery(
    out: Path,
    *,
    console: Console,
    command: Sequence[str],
    names: Sequence[str],
    quick: bool,
    seeds: int,
) -> bool:
    """Train some of the programs, or all; write a table, numbers and the changed lines.

    If quick, few steps, and Adam's default is left out. Programs whose packages are not installed
    are left out as well. The result is whether all was trained: False after an interrupt.
    """

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    programs: dict[str, Program] = {}
    results: dict[str, Result] = {}
    try:
        for name in dict.fromkeys(names or ENTRIES):
            if absent := missing(name):
                say(
                    f"{name} is left out: it needs {' and '.join(absent)}. "
                    f"Install with: pip install {' '.join(absent)}"
                )
                continue
            program = load(name)
            steps = program.quick if quick else program.steps
            say(f"{name}: {ENTRIES[name].description}, {steps:,} steps")
            results[name] = train(program, steps, seeds, adam=not quick)
            programs[name] = program
            _write(out, command, programs, results)
    except KeyboardInterrupt:
        kept = f"what was trained is in {out}" if results else "nothing was trained to its end"
        say(f"Interrupted: {kept}.")
        return False
    if results:
        say(table(programs, results))
        say(f"\n{_NOTE}\nNumbers and the changed lines are in {out}.")
    return True


def missing(name: str) -> list[str]:
    """Packages that a program needs and that are not installed."""
    return [need for need in ENTRIES[name].needs if importlib.util.find_spec(need) is None]


def load(name: str) -> Program:
    """The program of that name."""
    module = importlib.import_module(f".{ENTRIES[name].module}", __package__)
    return module.program()


def table(programs: Mapping[str, Program], results: Mapping[str, Result]) -> str:
    """A line in Markdown for each program."""
    rows = [_row(name, programs[name], result) for name, result in results.items()]
    return pd.DataFrame(rows).to_markdown(index=False, floatfmt=".3g", missingval="")


def _row(name: str, program: Program, result: Result) -> dict[str, Any]:
    losses = {name: float(np.median(values)) for name, values in result.losses.items()}
    ms = {name: 1e3 * seconds for name, seconds in result.seconds.items()}
    return {
        "program": name,
        "theirs": program.setting,
        "judged": program.judged,
        "loss, theirs": losses[THEIRS],
        "Adam 1e-3": losses.get(ADAM),
        "adameka": losses[OURS],
        "average": losses[AVERAGE],
        "ms": ms[THEIRS],
        "ms, adameka": ms[OURS],
        "÷ theirs": result.slowdown,
        "s to compile": result.compile_seconds[THEIRS],
        "adameka's": result.compile_seconds[OURS],
        "lines": result.lines,
    }


def _write(
    out: Path,
    command: Sequence[str],
    programs: Mapping[str, Program],
    results: Mapping[str, Result],
) -> None:
    facts = ("project", "url", "setting", "published_steps", "judged")
    content = {
        "command": command,
        "versions": versions(),
        "device": device(),
        "programs": {
            name: {fact: getattr(programs[name], fact) for fact in facts} | result._asdict()
            for name, result in results.items()
        },
    }
    write_json(out / NUMBERS, content)
    parts = ["# Gallery", table(programs, results), _NOTE]
    for name, program in programs.items():
        shown = difference(program.theirs, program.ours)
        head = f"## {name}\n\n{ENTRIES[name].description}, after [{program.project}]({program.url})"
        parts.append(f"{head}\n\n```diff\n{shown}\n```")
    (out / DOCUMENT).write_text("\n\n".join(parts) + "\n", encoding="utf-8")
