"""Images and labels as arrays: digits from scikit-learn, others from prepared datasets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import data_cache, prepared_data

_DECODED_AT_ONCE = 2_000


@dataclass(frozen=True)
class Images:
    """Labelled images.

    Attributes:
      image: uint8, shape (n, height, width, channels).
      label: integers, shape (n,).
    """

    image: np.ndarray
    label: np.ndarray


@dataclass(frozen=True)
class Dataset:
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


def stratified_split(
    label: np.ndarray, fraction: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Shuffled indices of two parts; the second has about `fraction` of each class."""
    classes = [rng.permutation(np.flatnonzero(label == c)) for c in np.unique(label)]
    cuts = [round(fraction * len(members)) for members in classes]
    first = np.concatenate([members[cut:] for members, cut in zip(classes, cuts, strict=True)])
    second = np.concatenate([members[:cut] for members, cut in zip(classes, cuts, strict=True)])
    return rng.permutation(first), rng.permutation(second)


def prepared(
    name: str, data_dir: Path | None = None, report: Callable[[str], None] = lambda text: None
) -> Dataset:
    """A prepared dataset, from the cache of decoded arrays if it is there and intact.

    Args:
      name: of the dataset.
      data_dir: folder of prepared datasets, or None for the default places.
      report: called with a line of text while images are being decoded.

    Raises:
      UsageError: if the dataset is missing or damaged.
    """
    source = prepared_data.find(name, data_dir)
    arrays = data_cache.read(source)
    if arrays is None:
        arrays = _decode_all(source, report)
        if not data_cache.write(source, arrays):
            report(f"{name}: decoded images not kept, cannot write to {data_cache.cache_dir()}")
    train = Images(arrays["train_image"], arrays["train_label"])
    test = Images(arrays["test_image"], arrays["test_label"])
    return Dataset(train, test, *pixel_statistics(train.image))


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


def _decode_all(source: prepared_data.Prepared, report: Callable[[str], None]) -> data_cache.Arrays:
    arrays: data_cache.Arrays = {}
    for split, count in source.examples.items():
        images, labels = [], []
        for done, elements in _elements(source, split, count):
            images.extend(element["image"] for element in elements)
            labels.extend(element["label"] for element in elements)
            report(f"{source.name}: decoding {split} images, {done:,} of {count:,}")
        arrays[f"{split}_image"] = np.stack(images)
        arrays[f"{split}_label"] = np.asarray(labels, np.int32)
    return arrays


def _elements(
    source: prepared_data.Prepared, split: str, count: int
) -> Iterator[tuple[int, list[dict]]]:
    """Decoded examples, some thousand at a time, with the number of those done."""
    with _quiet_absl():
        import tensorflow_datasets as tfds

        try:
            elements: Any = tfds.data_source(
                f"{source.name}:{source.version}",
                split=split,
                data_dir=source.data_dir,
                download=False,
            )
            for start in range(0, count, _DECODED_AT_ONCE):
                stop = min(start + _DECODED_AT_ONCE, count)
                yield stop, elements.__getitems__(list(range(start, stop)))
        except (RuntimeError, ValueError, OSError, LookupError, AssertionError) as error:
            reason = f"its {split} examples cannot be read ({type(error).__name__}: {error})"
            raise prepared_data.damaged(source.name, reason, source.folder) from error


@contextmanager
def _quiet_absl() -> Iterator[None]:
    """Keep absl's remarks about optional image libraries off the screen."""
    from absl import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)
