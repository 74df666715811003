"""Data sets on disk, data that come with scikit-learn, and which examples each step sees.

Prepared data sets are read in the layout of TensorFlow Datasets: `<data_dir>/<name>/<version>/`
with a `dataset_info.json` and files of examples. Nothing is ever downloaded. Importing this module
and finding a data set are quick and need no jax.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .errors import UsageError

SPLITS = ("train", "test")
_FILE_FORMAT = "array_record"
_SMALLEST_FILE = 64 * 1024  # bytes: every array_record file has at least one such block
_DECODED_AT_ONCE = 2_000

Arrays = dict[str, np.ndarray]


class Images(NamedTuple):
    """Labelled images.

    Attributes:
      image: uint8, shape (n, height, width, channels).
      label: integers, shape (n,).
    """

    image: np.ndarray
    label: np.ndarray


class Dataset(NamedTuple):
    """Training and test images; a model sees `(image - offset) / scale`.

    Attributes:
      train: images to learn from.
      test: images to judge by.
      offset: per channel, float32.
      scale: per channel, float32.
    """

    train: Images
    test: Images
    offset: np.ndarray
    scale: np.ndarray


class Prepared(NamedTuple):
    """A prepared data set whose files are all there.

    Attributes:
      name: of the data set.
      folder: of its newest version, `<data_dir>/<name>/<version>`.
      examples: number of examples of each split.
      files: all files that the content depends on.
    """

    name: str
    folder: Path
    examples: dict[str, int]
    files: tuple[Path, ...]


def batches(seed: int, start: int, count: int, examples: int, batch_size: int) -> np.ndarray:
    """Examples of consecutive steps; the same seed gives every optimizer the same ones.

    Each epoch goes through the examples in a new order and leaves out an incomplete last batch.

    Returns:
      Integers, shape (count, batch_size).
    """
    per_epoch = examples // batch_size
    rows = np.empty((count, batch_size), np.int32)
    for row, step in enumerate(range(start, start + count)):
        epoch, index = divmod(step, per_epoch)
        order = _order(seed, epoch, examples)
        rows[row] = order[index * batch_size : (index + 1) * batch_size]
    return rows


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, examples: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(examples)


def digits() -> Dataset:
    """The 1,797 digits of scikit-learn: one fixed split with 20 % of each class to test."""
    from sklearn.datasets import load_digits

    pixels, target = load_digits(return_X_y=True)
    image = np.asarray(pixels, np.uint8).reshape(-1, 8, 8, 1)
    label = np.asarray(target, np.int32)
    train, test = stratified_split(label, 0.2, np.random.default_rng(2020))
    return Dataset(
        Images(image[train], label[train]),
        Images(image[test], label[test]),
        offset=np.zeros(1, np.float32),
        scale=np.full(1, 16.0, np.float32),
    )


def cells() -> tuple[np.ndarray, np.ndarray]:
    """Ten measurements each of the nuclei of cells from 569 breast tumors: 80 % and 20 % of them.

    Float32 of shape (n, 10). Logarithms are taken, and brought to mean 0 and covariance I over the
    first part, as some measurements all but determine others (radius, perimeter, area). So what
    there is to learn beyond a Gaussian is below its 14.19 nats. The data come with scikit-learn.

    Source: W. N. Street, W. H. Wolberg and O. L. Mangasarian (1993).
    """
    from sklearn.datasets import load_breast_cancer

    values, label = load_breast_cancer(return_X_y=True)
    values = np.log(np.asarray(values)[:, :10] + 0.01)  # of concavity some are 0
    train, test = stratified_split(np.asarray(label), 0.2, np.random.default_rng(2020))
    mean, factor = values[train].mean(axis=0), np.linalg.cholesky(np.cov(values[train].T))
    white = np.linalg.solve(factor, (values - mean).T).T.astype(np.float32)
    return white[train], white[test]


def stratified_split(
    label: np.ndarray, fraction: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Shuffled indices of two parts; the second has about `fraction` of each class."""
    classes = [rng.permutation(np.flatnonzero(label == c)) for c in np.unique(label)]
    cuts = [round(fraction * len(members)) for members in classes]
    first = np.concatenate([members[cut:] for members, cut in zip(classes, cuts, strict=True)])
    second = np.concatenate([members[:cut] for members, cut in zip(classes, cuts, strict=True)])
    return rng.permutation(first), rng.permutation(second)


def with_label_noise(label: np.ndarray, share: float) -> np.ndarray:
    """Labels of which a share, always the same examples, is drawn anew from all classes."""
    rng = np.random.default_rng(2020)
    chosen = rng.random(label.shape) < share
    return np.where(chosen, rng.integers(0, label.max() + 1, label.shape), label)


def pixel_statistics(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel of uint8 images."""
    values = np.arange(256)
    counts = np.stack(
        [np.bincount(image[..., c].ravel(), minlength=256) for c in range(image.shape[-1])]
    )
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ values
    variance = share @ values**2 - mean**2
    return mean.astype(np.float32), np.sqrt(np.maximum(variance, 1.0)).astype(np.float32)


def prepared(
    name: str, data_dir: Path | None = None, report: Callable[[str], None] = lambda text: None
) -> Dataset:
    """A prepared data set, from the cache of decoded arrays if it is there and intact.

    Args:
      name: of the data set.
      data_dir: folder of prepared data sets, or None for the default places.
      report: called with a line of text while images are being decoded.

    Raises:
      UsageError: if the data set is missing or damaged.
    """
    source = find(name, data_dir)
    cache = cache_file(source)
    arrays = read_cache(cache, source.examples)
    if arrays is None:
        arrays = _decode(source, report)
        if not _write_cache(cache, arrays):
            report(f"{name}: decoded images not kept, cannot write to {cache.parent}")
    train, test = (Images(arrays[f"{split}_image"], arrays[f"{split}_label"]) for split in SPLITS)
    return Dataset(train, test, *pixel_statistics(train.image))


def locate(data_dir: Path | None) -> tuple[Path, str]:
    """Folder of prepared data sets, and who said so."""
    if data_dir is not None:
        return data_dir.expanduser(), "given by --data-dir"
    if os.environ.get("TFDS_DATA_DIR"):
        return Path(os.environ["TFDS_DATA_DIR"]).expanduser(), "given by TFDS_DATA_DIR"
    return (
        Path.home() / "tensorflow_datasets",
        "the default, as neither --data-dir nor TFDS_DATA_DIR is set",
    )


def find(name: str, data_dir: Path | None = None) -> Prepared:
    """Find the newest prepared version of a data set.

    TensorFlow Datasets takes seconds to import and does not notice incomplete copies, so what is
    on disk is checked here.

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
    info = infos[-1]
    shards = _shards(name, info)
    files = [
        info.parent / f"{name}-{split}.{_FILE_FORMAT}-{index:05d}-of-{len(lengths):05d}"
        for split, lengths in shards.items()
        for index in range(len(lengths))
    ]
    for file in files:
        if not file.is_file():
            raise _damaged(name, f"the file {file.name} is missing", info.parent)
        if file.stat().st_size < _SMALLEST_FILE:
            raise _damaged(name, f"the file {file.name} is truncated", info.parent)
    examples = {split: sum(lengths) for split, lengths in shards.items()}
    return Prepared(name, info.parent, examples, (info, *files))


def _version(info: Path) -> tuple[int, ...]:
    """Version folder as numbers, so that 3.10.0 comes after 3.9.0; others come first."""
    parts = info.parent.name.split(".")
    return tuple(int(part) for part in parts) if all(p.isdigit() for p in parts) else ()


def _shards(name: str, info: Path) -> dict[str, list[int]]:
    """Number of examples in each file of each split."""
    try:
        description = json.loads(info.read_text(encoding="utf-8"))
        file_format = description["fileFormat"]
        lengths = {split["name"]: split["shardLengths"] for split in description["splits"]}
        shards = {split: [int(length) for length in lengths[split]] for split in SPLITS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"its dataset_info.json cannot be understood ({type(error).__name__}: {error})"
        raise _damaged(name, reason, info.parent) from error
    if file_format != _FILE_FORMAT:
        raise UsageError(
            f"expected the prepared dataset {name!r} in the file format {_FILE_FORMAT}, which is "
            f"read without TensorFlow, got {file_format!r} in {info.parent}. Prepare it again into "
            f"another folder: tfds.data_source({name!r}, data_dir=...) writes that format."
        )
    return shards


def _damaged(name: str, what: str, folder: Path) -> UsageError:
    return UsageError(
        f"expected the complete prepared dataset {name!r} in {folder}, but {what}. Copy or prepare "
        f"that folder again, or point --data-dir or TFDS_DATA_DIR at an intact one."
    )


def _decode(source: Prepared, report: Callable[[str], None]) -> Arrays:
    arrays: Arrays = {}
    for split, count in source.examples.items():
        examples: list[dict] = []
        for some in decoded(source, split):
            examples += some
            report(f"{source.name}: decoding {split} images, {len(examples):,} of {count:,}")
        arrays[f"{split}_image"] = np.stack([example["image"] for example in examples])
        arrays[f"{split}_label"] = np.asarray([example["label"] for example in examples], np.int32)
    return arrays


def decoded(source: Prepared, split: str, at_once: int = _DECODED_AT_ONCE) -> Iterator[list[dict]]:
    """Decoded examples of a split, so many at a time.

    Raises:
      UsageError: if they cannot be read.
    """
    from absl import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # no remarks about optional image libraries
    try:
        import tensorflow_datasets as tfds

        elements: Any = tfds.data_source(
            f"{source.name}:{source.folder.name}",
            split=split,
            data_dir=source.folder.parents[1],
            download=False,
        )
        count = source.examples[split]
        for start in range(0, count, at_once):
            yield elements.__getitems__(list(range(start, min(start + at_once, count))))
    except (RuntimeError, ValueError, OSError, LookupError, AssertionError) as error:
        reason = f"its {split} examples cannot be read ({type(error).__name__}: {error})"
        raise _damaged(source.name, reason, source.folder) from error
    finally:
        logging.set_verbosity(verbosity)


def cache_file(source: Prepared) -> Path:
    """File of the decoded arrays: decoding tens of thousands of small images takes many seconds.

    It lies in `$XDG_CACHE_HOME/mekax`, by default `~/.cache/mekax`, and its name changes whenever a
    source file does.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path.home() / ".cache") / "mekax"
    place = _digest(str(source.folder.resolve()))[:8]
    stats = [(file.name, file.stat()) for file in source.files]
    state = "".join(f"{name} {stat.st_size} {stat.st_mtime_ns}\n" for name, stat in stats)
    return folder / f"{source.name}-{source.folder.name}-{place}-{_digest(state)[:16]}.npz"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def read_cache(file: Path, examples: dict[str, int]) -> Arrays | None:
    """The cached arrays, or None if there are none or they are damaged."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):
        return None
    kinds = ("image", "label")
    lengths = {f"{split}_{kind}": (n,) for split, n in examples.items() for kind in kinds}
    return arrays if {name: array.shape[:1] for name, array in arrays.items()} == lengths else None


def _write_cache(target: Path, arrays: Arrays) -> bool:
    """Keep the arrays for later, in one step; False if the cache folder cannot be written to."""
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, suffix=".tmp", delete=False) as file:
            temporary = Path(file.name)
            np.savez(file, allow_pickle=False, **arrays)
        temporary.replace(target)
    except OSError:
        return False
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    for other in target.parent.glob(f"{target.name.rpartition('-')[0]}-*.npz"):
        if other != target:  # of files that have changed since
            other.unlink(missing_ok=True)
    return True
