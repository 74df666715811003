"""Compression of images by a narrow network: badly conditioned, hardly any noise."""

from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from ..datasets import Dataset
from .problem import Problem, PyTree


def autoencoder(
    name: str, dataset: Dataset, module: nn.Module, *, batch_size: int, epochs: int
) -> Problem:
    """Make the problem of reconstructing images.

    The loss of an image is the mean squared error of its pixels, divided by the variance of the
    pixels over all training images: 1 is what the mean image comes to, 0 is perfect.

    Args:
      name: of the problem.
      dataset: images; labels play no part.
      module: maps vectors (n, pixels) to vectors of the same size.
      batch_size: default batch size.
      epochs: default number of epochs.
    """
    pixels = dataset.train.image.reshape(len(dataset.train.image), -1)
    mean = jnp.asarray(pixels.mean(axis=0, dtype="float64"), jnp.float32)
    deviation = jnp.asarray(pixels.var(axis=0, dtype="float64").mean() ** 0.5, jnp.float32)

    def losses(params: PyTree, batch: PyTree, key: jax.Array | None = None) -> jax.Array:
        del key
        x = (batch["image"].reshape(batch["image"].shape[0], -1) - mean) / deviation
        return jnp.mean(jnp.square(cast(jax.Array, module.apply(params, x)) - x), axis=1)

    def loss(params: PyTree, example: PyTree, key: jax.Array | None = None) -> jax.Array:
        return losses(params, jax.tree.map(lambda leaf: leaf[None], example), key)[0]

    return Problem(
        name=name,
        init=lambda key: module.init(key, jnp.zeros((1, pixels.shape[1]))),
        loss=loss,
        losses=losses,
        measure=lambda params, batch: {"loss": losses(params, batch)},
        data={"image": jnp.asarray(dataset.train.image)},
        test={"image": jnp.asarray(dataset.test.image)},
        batch_size=batch_size,
        epochs=epochs,
    )
