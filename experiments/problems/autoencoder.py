"""Compression of images by a narrow network: badly conditioned, hardly any noise."""

from collections.abc import Sequence
from typing import cast

import jax
import jax.numpy as jnp

from .. import data
from ..models import SmoothMLP
from ..problem import Problem, PyTree, Source
from .common import deterministic


def mnist(name: str, source: Source) -> Problem:
    dataset = data.prepared("mnist", source.data_dir, source.report)
    return autoencoder(name, dataset, (64, 16, 64), batch_size=128, epochs=5)


def autoencoder(
    name: str, dataset: data.Dataset, widths: Sequence[int], *, batch_size: int, epochs: int
) -> Problem:
    """Make the problem of reconstructing images by layers with tanh between them.

    The loss of an image is the mean squared error of its pixels, divided by the variance of the
    pixels over all training images: the mean image has loss 1, a perfect reconstruction 0.

    Args:
      name: of the problem.
      dataset: images; labels play no part.
      widths: sizes of the hidden layers.
      batch_size: default batch size.
      epochs: default number of epochs.
    """
    pixels = dataset.train.image.reshape(len(dataset.train.image), -1)
    mean = jnp.asarray(pixels.mean(axis=0, dtype="float64"), jnp.float32)
    deviation = jnp.asarray(pixels.var(axis=0, dtype="float64").mean() ** 0.5, jnp.float32)
    module = SmoothMLP(widths, pixels.shape[1])

    def errors(params: PyTree, batch: PyTree) -> jax.Array:
        x = (batch["image"].reshape(batch["image"].shape[0], -1) - mean) / deviation
        return jnp.mean(jnp.square(cast(jax.Array, module.apply(params, x)) - x), axis=1)

    loss, losses = deterministic(errors)
    return Problem(
        name=name,
        init=lambda key: module.init(key, jnp.zeros((1, pixels.shape[1]))),
        loss=loss,
        losses=losses,
        measure=lambda params, batch: {"loss": errors(params, batch)},
        data={"image": jnp.asarray(dataset.train.image)},
        test={"image": jnp.asarray(dataset.test.image)},
        batch_size=batch_size,
        epochs=epochs,
    )
