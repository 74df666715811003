"""Two tasks on MNIST of `learned_optimization`, against which learned optimizers are judged.

Pixels are divided by 255 and not centered. Weights begin as normal variables of variance 1/fan-in,
cut off at two standard deviations; biases are 0.

Source: google/learned_optimization, `tasks/fixed/image_mlp.py` (ImageMLP_Mnist_128x128x128_Relu)
and `tasks/fixed/image_mlp_ae.py` (ImageMLPAE_Mnist_128x32x128_bs128); L. Metz et al., *Practical
tradeoffs between memory, compute, and performance in learned optimizers* (2022), arXiv:2203.11860.
"""

from collections.abc import Sequence
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from .. import data
from ..problem import Problem, PyTree, Source
from .classification import classification
from .common import deterministic, in_precision_of

BATCH_SIZE = 128
_CUT = 0.8796256610342398  # standard deviation of a normal variable cut off at ±2


class CutMLP(nn.Module):
    """Fully connected layers with relu between them, of the initialization above.

    Attributes:
      widths: sizes of the layers, the last one that of the output.
    """

    widths: Sequence[int]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Outputs (n, widths[-1]) of images or vectors (n, …)."""
        x = x.reshape(x.shape[0], -1)
        # Flax makes up for what the cut takes from the variance; the tasks do not.
        spread = nn.initializers.variance_scaling(_CUT**2, "fan_in", "truncated_normal")
        for place, width in enumerate(self.widths):
            x = nn.Dense(width, kernel_init=spread)(nn.relu(x) if place else x)
        return x


def classifier(name: str, source: Source) -> Problem:
    """Cross-entropy of an MLP 784-128-128-128-10."""
    dataset = data.prepared("mnist", source.data_dir, source.report)
    plain = dataset._replace(offset=np.zeros(1, np.float32), scale=np.full(1, 255.0, np.float32))
    return classification(name, plain, CutMLP((128, 128, 128, 10)), batch_size=BATCH_SIZE, epochs=5)


def autoencoder(name: str, source: Source) -> Problem:
    """Mean squared error of pixels that layers 784-128-32-128-784 reconstruct, after a sigmoid."""
    dataset = data.prepared("mnist", source.data_dir, source.report)
    pixels = dataset.train.image[0].size
    module = CutMLP((128, 32, 128, pixels))

    def errors(params: PyTree, batch: PyTree) -> jax.Array:
        images = in_precision_of(params, batch["image"])
        x = images.reshape(len(images), -1) / 255
        found = jax.nn.sigmoid(cast(jax.Array, module.apply(params, x)))
        return jnp.mean(jnp.square(x - found), axis=1)

    loss, losses = deterministic(errors)
    return Problem(
        name=name,
        init=lambda key: module.init(key, jnp.zeros((1, pixels))),
        loss=loss,
        losses=losses,
        measure=lambda params, batch: {"loss": errors(params, batch)},
        data={"image": jnp.asarray(dataset.train.image)},
        test={"image": jnp.asarray(dataset.test.image)},
        batch_size=BATCH_SIZE,
        epochs=5,
    )
