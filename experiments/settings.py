"""What a comparison is asked to do, checked before anything heavy is imported."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .errors import UsageError
from .optimizer_specs import OptimizerSpec, parse_all
from .problems import registry

DEFAULT_PROBLEMS = ("digits",)
DEFAULT_OPTIMIZERS = ("meka", "adameka", "adam:1e-3", "sgd:0.1")
RESULTS = "results.json"
_ELSEWHERE = "Choose another folder, or move that one away."
_RESUME = "Add --resume to continue that comparison, or choose another folder."


@dataclass(frozen=True)
class Settings:
    """A comparison.

    Attributes:
      problems: names in the registry.
      optimizers: what to compare.
      out: existing folder for results and figures, holding no results but those to continue.
      epochs: passes over the data, or None for the problem's default.
      seconds: training time of each run, compilation and evaluation apart, instead of `epochs`.
      batch_size: examples per step, or None for the problem's default.
      seeds: number of repetitions; seed k is the same initial parameters and data order for all.
      tune: whether to sweep the learning rates of the baselines.
      data_dir: folder of prepared datasets, or None for the default places.
    """

    problems: tuple[str, ...]
    optimizers: tuple[OptimizerSpec, ...]
    out: Path
    epochs: int | None = None
    seconds: float | None = None
    batch_size: int | None = None
    seeds: int = 1
    tune: bool = False
    data_dir: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a file."""
        plain = {**asdict(self), "optimizers": [spec.label for spec in self.optimizers]}
        return {name: str(v) if isinstance(v, Path) else v for name, v in plain.items()}


def check(
    problems: Sequence[str] = (),
    optimizers: Sequence[str] = (),
    *,
    epochs: str | None = None,
    seconds: str | None = None,
    batch_size: str | None = None,
    seeds: str = "1",
    tune: bool = False,
    data_dir: str | None = None,
    out: str | None = None,
    resume: bool = False,
) -> Settings:
    """Turn what the user typed into settings; creates the output folder last of all.

    Raises:
      UsageError: for the first thing that cannot work.
    """
    names = tuple(dict.fromkeys(registry.adopt(text) for text in problems or DEFAULT_PROBLEMS))
    entries = [registry.find(name) for name in names]
    specs = parse_all(optimizers or DEFAULT_OPTIMIZERS)
    if epochs is not None and seconds is not None:
        raise UsageError(
            f"expected a budget in epochs or in seconds, got both --epochs {epochs} and "
            f"--seconds {seconds}. Leave one of them out."
        )
    if tune and not any(spec.is_baseline for spec in specs):
        raise UsageError(
            "expected at least one optimizer with a learning rate to tune, got "
            f"{' '.join(spec.label for spec in specs)}. Add for example adam to --optimizers, "
            "or leave --tune out."
        )
    size = None if batch_size is None else positive_integer("--batch-size", batch_size)
    n_epochs = None if epochs is None else positive_integer("--epochs", epochs)
    n_seconds = None if seconds is None else positive_number("--seconds", seconds)
    n_seeds = positive_integer("--seeds", seeds)
    folder = None if data_dir is None else Path(data_dir)
    for name, entry in zip(names, entries, strict=True):
        examples = entry.training_examples(folder)
        if size is not None and size > examples:
            raise UsageError(
                f"expected --batch-size to be at most the {examples:,} training examples of "
                f"{name}, got {size}. Choose a smaller one."
            )
    if resume and out is None:
        raise UsageError(
            "expected --out with --resume, got no folder. Name the one that the interrupted "
            "comparison wrote to."
        )
    default_out = f"results/{'+'.join(names)}-{datetime.now():%Y%m%d-%H%M%S}"
    return Settings(
        problems=names,
        optimizers=specs,
        out=output_folder(out or default_out, *(() if resume else (RESULTS,)), advice=_RESUME),
        epochs=n_epochs,
        seconds=n_seconds,
        batch_size=size,
        seeds=n_seeds,
        tune=tune,
        data_dir=folder,
    )


def positive_integer(option: str, text: str) -> int:
    """Read a whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise UsageError(
            f"expected {option} to be a whole number of at least 1, got {text!r}. "
            f"Write for example {option} 5."
        )
    return value


def positive_number(option: str, text: str) -> float:
    """Read a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise UsageError(
            f"expected {option} to be a positive number, got {text!r}. "
            f"Write for example {option} 30."
        )
    return value


def output_folder(text: str, *files: str, advice: str = _ELSEWHERE) -> Path:
    """Make the folder, and make sure that it can be written to and has none of the files.

    Args:
      text: the folder.
      files: names of files that must not exist.
      advice: what to do if one does.

    Raises:
      UsageError: if it cannot be written to, or writing would replace an earlier result.
    """
    folder = Path(text).expanduser()
    for file in files:
        if (folder / file).exists():
            raise UsageError(
                f"expected --out to be a folder without earlier results, but {folder / file} "
                f"exists. {advice}"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"expected --out to be a folder that can be written to, got {text!r} "
            f"({error.strerror or error}). Choose another folder."
        ) from error
    return folder
