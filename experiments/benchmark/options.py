"""What a benchmark is asked to do, checked before anything heavy is imported."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .. import files
from ..errors import UsageError, unknown_name
from ..problems import registry
from ..settings import output_folder, positive_integer
from . import methods as known_methods
from . import suite


@dataclass(frozen=True)
class Options:
    """A benchmark.

    Attributes:
      profile: name of the profile.
      cells: what to train on.
      methods: what to compare.
      seeds: repetitions, and for the settings of a sweep at most this many.
      out: folder for units of work, report and figures.
      jobs: processes that share the work.
      data_dir: folder of prepared datasets, or None for the default places.
    """

    profile: str
    cells: tuple[suite.Cell, ...]
    methods: tuple[str, ...]
    seeds: int
    out: Path
    jobs: int = 1
    data_dir: Path | None = None

    @property
    def sweep_seeds(self) -> int:
        """Repetitions of every setting of a baseline."""
        return min(suite.PROFILES[self.profile].sweep_seeds, self.seeds)

    def record(self) -> dict[str, Any]:
        """What all units in a folder share."""
        profile = suite.PROFILES[self.profile]
        return {
            "settings": {
                "profile": self.profile,
                "seeds": self.seeds,
                "sweep_seeds": self.sweep_seeds,
                "looks": profile.looks,
                "judged": profile.judged,
                "rates": profile.rates,
            },
            "versions": files.versions(),
        }


def check(
    problems: Sequence[str] = (),
    *,
    profile: str = "standard",
    batch_size: Sequence[str] = (),
    methods: Sequence[str] = (),
    ablate: bool = False,
    jobs: str = "1",
    seeds: str | None = None,
    data_dir: str | None = None,
    out: str | None = None,
) -> Options:
    """Turn what the user typed into options; creates the output folder last of all.

    Raises:
      UsageError: for the first thing that cannot work.
    """
    if os.name == "nt":
        raise UsageError(
            "expected Linux or macOS, whose file locks let processes share a benchmark, got "
            "Windows. Run it in the Windows Subsystem for Linux."
        )
    if profile not in suite.PROFILES:
        raise unknown_name("a profile", profile, suite.PROFILES)
    size = suite.PROFILES[profile]
    for name in problems:
        registry.find(name)
        if name not in size.sizes:
            raise UsageError(
                f"expected problems of the profile {profile}, got {name!r}, for which it says "
                f"nothing. Its problems: {', '.join(size.sizes)}."
            )
    sizes = [positive_integer("--batch-size", text) for text in batch_size]
    cells = suite.cells(size, problems, tuple(dict.fromkeys(sizes)))
    names = [known_methods.check(name) for name in methods or known_methods.DEFAULT]
    if ablate:
        names += known_methods.ABLATIONS
    n_jobs = positive_integer("--jobs", jobs)
    n_seeds = size.seeds if seeds is None else positive_integer("--seeds", seeds)
    folder = None if data_dir is None else Path(data_dir)
    for cell in cells:
        there = registry.find(cell.problem).training_examples(folder)
        examples = min(there, cell.examples or there)
        if cell.batch_size > examples:
            raise UsageError(
                f"expected --batch-size to be at most the {examples:,} training examples that "
                f"{cell.problem} has in this profile, got {cell.batch_size}. Choose a smaller one."
            )
    return Options(
        profile=profile,
        cells=cells,
        methods=tuple(dict.fromkeys(names)),
        seeds=n_seeds,
        out=output_folder(out or f"results/benchmark-{datetime.now():%Y%m%d-%H%M%S}"),
        jobs=n_jobs,
        data_dir=folder,
    )
