"""Where prepared datasets lie on disk, and whether they are complete; quick, and needs no jax.

The layout is that of TensorFlow Datasets: `<data_dir>/<name>/<version>/dataset_info.json` and,
beside it, the files of examples. Nothing is ever downloaded.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from .errors import UsageError

SPLITS = ("train", "test")
FILE_FORMAT = "array_record"
_SMALLEST_FILE = 64 * 1024  # bytes: every array_record file has at least one such block


@dataclass(frozen=True)
class Prepared:
    """A complete prepared dataset.

    Attributes:
      name: of the dataset.
      version: of the dataset, for example `3.0.1`.
      data_dir: folder of all prepared datasets.
      examples: number of examples of each split.
      files: all files that the content depends on.
    """

    name: str
    version: str
    data_dir: Path
    examples: dict[str, int]
    files: tuple[Path, ...]

    @property
    def folder(self) -> Path:
        """Folder of this version."""
        return self.data_dir / self.name / self.version


def locate(data_dir: Path | None) -> tuple[Path, str]:
    """Folder of prepared datasets, and who said so."""
    if data_dir is not None:
        return data_dir.expanduser(), "given by --data-dir"
    if os.environ.get("TFDS_DATA_DIR"):
        return Path(os.environ["TFDS_DATA_DIR"]).expanduser(), "given by TFDS_DATA_DIR"
    return (
        Path.home() / "tensorflow_datasets",
        "the default, as neither --data-dir nor TFDS_DATA_DIR is set",
    )


def find(name: str, data_dir: Path | None = None) -> Prepared:
    """Find the newest prepared version of a dataset.

    Raises:
      UsageError: if there is none, or if its description or its files are damaged.
    """
    root, origin = locate(data_dir)
    infos = sorted((root / name).glob("*/dataset_info.json"), key=_version)
    if not infos:
        raise UsageError(
            f"expected the prepared dataset {name!r}, found no file "
            f"{root / name}/<version>/dataset_info.json ({root} is {origin}). Pass --data-dir "
            f"or set TFDS_DATA_DIR to a folder that has it, or prepare it where there is a "
            f'network: python -c "import tensorflow_datasets as tfds; '
            f'tfds.data_source({name!r}, data_dir={str(root)!r})". The problems called digits '
            f"need no data."
        )
    return _read(name, root, infos[-1])


def damaged(name: str, what: str, folder: Path) -> UsageError:
    """Error for data that are there but cannot be read."""
    return UsageError(
        f"expected the complete prepared dataset {name!r} in {folder}, but {what}. Copy or prepare "
        f"that folder again, or point --data-dir or TFDS_DATA_DIR at an intact one."
    )


def _read(name: str, root: Path, info: Path) -> Prepared:
    try:
        description = json.loads(info.read_text(encoding="utf-8"))
        file_format = description["fileFormat"]
        shards = {
            split["name"]: [int(length) for length in split["shardLengths"]]
            for split in description["splits"]
        }
        examples = {split: sum(shards[split]) for split in SPLITS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"its dataset_info.json cannot be understood ({type(error).__name__}: {error})"
        raise damaged(name, reason, info.parent) from error
    if file_format != FILE_FORMAT:
        raise UsageError(
            f"expected the prepared dataset {name!r} in the file format {FILE_FORMAT}, which is "
            f"read without TensorFlow, got {file_format!r} in {info.parent}. Prepare it again into "
            f"another folder: tfds.data_source({name!r}, data_dir=...) writes that format."
        )
    files = tuple(
        info.parent / f"{name}-{split}.{FILE_FORMAT}-{index:05d}-of-{len(shards[split]):05d}"
        for split in SPLITS
        for index in range(len(shards[split]))
    )
    for file in files:
        if not file.is_file():
            raise damaged(name, f"the file {file.name} is missing", info.parent)
        if file.stat().st_size < _SMALLEST_FILE:
            raise damaged(name, f"the file {file.name} is truncated", info.parent)
    return Prepared(name, info.parent.name, root, examples, (info, *files))


def _version(info: Path) -> tuple[int, ...]:
    """Version folder as numbers, so that 3.10.0 comes after 3.9.0; others come first."""
    parts = info.parent.name.split(".")
    return tuple(int(part) for part in parts) if all(p.isdigit() for p in parts) else ()
