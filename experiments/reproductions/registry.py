"""The names of the reproductions: adding one is adding a file and a line here."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import prepared_data
from ..errors import UsageError
from .folder import finished

if TYPE_CHECKING:
    from rich.console import Console

ALL = "all"
REPORT = "report.html"
QUICK_SEEDS, FULL_SEEDS = 3, 10
Report = Callable[[str], None]


def quiet(text: str) -> None:
    """Say nothing about the progress."""
    del text


@dataclass(frozen=True)
class Entry:
    """A reproduction.

    Attributes:
      description: one line.
      module: file in this folder with `run(out, quick, seeds, report) -> Reproduction`, which
        draws `NAME.png` into the folder `out` and calls `report` with how far it is.
      datasets: prepared datasets it reads; its quick version takes digits where they are absent.
    """

    description: str
    module: str
    datasets: tuple[str, ...] = ()


REPRODUCTIONS = {
    "trajectories": Entry("paths in two dimensions: the filtered one stays calm", "trajectories"),
    "noisy-quadratic": Entry(
        "excess loss of the filter falls as 1/t where SGD stalls", "noisy_quadratic"
    ),
    "acquisitions": Entry("which step each acquisition function chooses, and why", "acquisitions"),
    "step-scaling": Entry(
        "multiples of the chosen steps: is the chosen one best?",
        "step_scaling",
        ("mnist", "cifar10"),
    ),
    "gradient-error": Entry(
        "distance of batch and filter to the true gradient; is the stated variance right?",
        "gradient_error",
        ("cifar10",),
    ),
    "edge": Entry("multiples of the Newton step, sharpness, and noise", "edge"),
    "covariance": Entry("structures and constants of the filter", "covariance", ("mnist",)),
    "cost": Entry("time of a step next to SGD's", "cost", ("mnist", "cifar10")),
    "switch": Entry("from fixed to adaptive steps at several times", "switch", ("cifar10",)),
    "baselines": Entry(
        "tuned SGD, momentum and Adam against the published rule and ours",
        "baselines",
        ("mnist", "cifar10"),
    ),
}


def default_folder(names: Sequence[str]) -> str:
    """Folder for results where none is named."""
    words = ALL if len(names) == len(REPRODUCTIONS) > 1 else "+".join(names)
    return f"results/{words}-{datetime.now():%Y%m%d-%H%M%S}"


def check_data(names: Sequence[str], quick: bool) -> list[str]:
    """Make sure that the data are there; returns lines about what will stand in for absent ones.

    Raises:
      UsageError: if the full version of one of them needs data that are absent.
    """
    remarks = []
    wanted = {dataset for name in names for dataset in REPRODUCTIONS[name].datasets}
    for dataset in sorted(wanted):
        try:
            prepared_data.find(dataset)
        except UsageError:
            if not quick:
                raise
            root, origin = prepared_data.locate(None)
            remarks.append(
                f"No prepared {dataset} in {root} ({origin}): digits stand in for it, and every "
                "picture says so."
            )
    return remarks


def run_all(
    names: Sequence[str],
    out: Path,
    asked: Mapping[str, Any],
    console: Console,
    command: Sequence[str] = (),
    with_report: bool = False,
) -> bool:
    """Run each that the folder does not hold yet, and print its verdicts.

    The file of each is written as soon as it is done, so that what was interrupted can go on.

    Returns:
      Whether every claim of every reproduction holds.
    """
    from . import claims, report

    holds = True
    for name in names:
        content = finished(name, out, asked)
        if content is not None:
            found, tables = claims.read(content)
            console.print(f"{name}: already there", highlight=False)
        else:
            module = importlib.import_module(f".{REPRODUCTIONS[name].module}", __package__)
            with console.status(name) as status:
                result = module.run(
                    out,
                    asked["quick"],
                    asked["seeds"],
                    lambda text, name=name, status=status: status.update(f"{name}: {text}"),
                )
            claims.write(name, result, out, command, asked)
            found, tables = result.claims, result.tables
        claims.show(name, found, tables, console)
        console.print(f"Results: {out / f'{name}.json'}", highlight=False, soft_wrap=True)
        holds = holds and all(claim.holds for claim in found)
    if with_report:
        path = report.write(out, {name: REPRODUCTIONS[name].description for name in names})
        console.print(f"Report: {path}", highlight=False, soft_wrap=True)
    return holds
