"""Deep sets: a function of a set of images, whatever their order.

    prediction = ρ(Σᵢ φ(xᵢ)),    ℓ = (prediction − Σᵢ digit(xᵢ))² / variance of the sums

φ and ρ are networks. Only the sum of the digits is told, never what one image shows.

M. Zaheer et al., *Deep Sets* (2017), arXiv:1703.06114, theorem 2 and section 4.1.2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import data
from ..models import SmoothMLP
from ..problem import Problem, PyTree, Source
from .common import deterministic, in_precision_of

TRAIN, TEST = 4_000, 1_000
_LARGEST = 8  # images in a set


class Sets(NamedTuple):
    """Sets of images, filled up with images that do not belong to them.

    Attributes:
      image: uint8, shape (sets, 8, pixels).
      member: whether an image belongs to the set, bool, shape (sets, 8).
      total: sum of the digits that the set shows, int32, shape (sets,).
    """

    image: np.ndarray
    member: np.ndarray
    total: np.ndarray


def draw_sets(images: data.Images, seed: int, count: int) -> Sets:
    """Draw sets of one to eight of the images."""
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(images.label), (count, _LARGEST))
    member = np.arange(_LARGEST) < rng.integers(1, _LARGEST + 1, (count, 1))
    pixels = images.image.reshape(len(images.label), -1)
    total = np.where(member, images.label[chosen], 0).sum(axis=1)
    return Sets(pixels[chosen], member, total.astype(np.int32))


def digits(name: str, source: Source) -> Problem:
    del source  # the data are built in
    dataset = data.digits()
    train, test = draw_sets(dataset.train, 0, TRAIN), draw_sets(dataset.test, 1, TEST)
    return sums(name, train, test, float(dataset.scale[0]), width=32, batch_size=64, epochs=30)


def sums(
    name: str, train: Sets, test: Sets, scale: float, *, width: int, batch_size: int, epochs: int
) -> Problem:
    """Make the problem of learning the sum of the digits of a set; no set at all has loss 1.

    Measured besides the loss is the `error`, by how much a sum is off.

    Args:
      name: of the problem.
      train: sets to learn from.
      test: sets to judge by, of other images.
      scale: of the pixels.
      width: of the hidden layers.
      batch_size: default batch size.
      epochs: default number of epochs.
    """
    each: Any = SmoothMLP((width,), width)
    whole: Any = SmoothMLP((width,), 1)
    mean, deviation = float(train.total.mean()), float(train.total.std())

    def init(key: jax.Array) -> PyTree:
        each_key, whole_key = jax.random.split(key)
        return {
            "each": each.init(each_key, jnp.zeros(train.image.shape[-1])),
            "whole": whole.init(whole_key, jnp.zeros(width)),
        }

    def predict(params: PyTree, batch: PyTree) -> jax.Array:
        """Sums (n,) in units of their deviation, from their mean."""
        image, member = in_precision_of(params, (batch["image"], batch["member"]))
        features = each.apply(params["each"], image / scale) * member[..., None]
        return whole.apply(params["whole"], features.sum(axis=-2))[..., 0]

    def errors(params: PyTree, batch: PyTree) -> jax.Array:
        return jnp.square(predict(params, batch) - (batch["total"] - mean) / deviation)

    def measure(params: PyTree, batch: PyTree) -> dict[str, jax.Array]:
        value = errors(params, batch)
        return {"loss": value, "error": deviation * jnp.sqrt(value)}

    def plot(params: PyTree, path: Path) -> None:
        predicted = mean + deviation * jax.jit(predict)(params, problem.test)
        _draw(name, test, np.asarray(predicted), path)

    loss, losses = deterministic(errors)
    problem = Problem(
        name=name,
        init=init,
        loss=loss,
        losses=losses,
        measure=measure,
        data=jax.tree.map(jnp.asarray, train._asdict()),
        test=jax.tree.map(jnp.asarray, test._asdict()),
        batch_size=batch_size,
        epochs=epochs,
        plot=plot,
    )
    return problem


def _draw(name: str, test: Sets, predicted: np.ndarray, file: Path) -> None:
    """Predicted sums of test sets over the true ones."""
    from ..plots import figure, save, tidy

    fig = figure(4.5, 4.5)
    axes = fig.add_subplot()
    ends = (0, test.total.max())
    axes.plot(ends, ends, color="grey", lw=0.8)
    axes.scatter(test.total, predicted, s=6, c=test.member.sum(axis=1), cmap="viridis")
    axes.set_xlabel("sum of the digits")
    axes.set_ylabel("prediction")
    axes.set_title(f"{name}: test sets, brighter the larger they are", fontsize=10)
    tidy(axes)
    save(fig, file)
