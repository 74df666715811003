"""A network that is equivariant under quarter turns: turned inputs have turned features.

    (f ⋆ ψ)(x, r) = Σ_y Σ_s f(y, s) ψ(R⁻ʳ (y − x), s − r),    r, s = 0, 1, 2, 3 quarter turns R

Features have a value for every place and turn. One filter is used in all four turns, and the mean
over places and turns does not change when the image is turned. The images are digits, each turned
by a random number of quarter turns.

T. S. Cohen and M. Welling, *Group Equivariant Convolutional Networks* (2016), arXiv:1602.07576,
sections 4.2, 6.1 and 6.3 with the group p4.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from .. import data
from ..problem import Problem, PyTree, Source
from .classification import classification

TURNS = 4


def digits(name: str, source: Source) -> Problem:
    """Make the problem of telling turned digits; measured is the accuracy as well."""
    del source  # the data are built in
    dataset, module = turned_digits(), EquivariantCNN((8, 24), 10)
    problem = classification(name, dataset, module, batch_size=64, epochs=30)

    def plot(params: PyTree, path: Path) -> None:
        logits = jax.jit(lambda x: cast(jax.Array, module.apply(params, x / dataset.scale)))
        told = np.argmax(logits(problem.test["image"]), axis=1)
        _draw(name, dataset.test.label, told, path)

    return dataclasses.replace(problem, plot=plot)


def turned_digits() -> data.Dataset:
    """The built-in digits, each turned by a number of quarter turns that is drawn once."""
    whole = data.digits()
    train, test = (turned(part, seed) for seed, part in enumerate(whole[:2]))
    return data.Dataset(train, test, whole.offset, whole.scale)


def turned(images: data.Images, seed: int) -> data.Images:
    """Turn every image by a random number of quarter turns."""
    times = np.random.default_rng(seed).integers(0, TURNS, len(images.image))
    all_turns = np.stack([np.rot90(images.image, k, (1, 2)) for k in range(TURNS)])
    return data.Images(all_turns[times, np.arange(len(times))], images.label)


class GroupConvolution(nn.Module):
    """Convolution over places and quarter turns, as one matrix product over patches.

    Attributes:
      width: number of output channels.
      kernel: size of the filters.
      stride: places from one output to the next.
      padding: zeros on each side.
    """

    width: int
    kernel: int = 3
    stride: int = 1
    padding: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map features (n, size, size, turns, channels) to (n, size', size', 4, width).

        An image has one turn in place of four.

        Raises:
          ValueError: if the outputs of a turned input would not be at turned places.
        """
        _, height, width, turns, channels = x.shape
        span = height + 2 * self.padding - self.kernel
        if height != width or span < 0 or span % self.stride:
            raise ValueError(
                f"expected squares of a size that kernels of {self.kernel} reach from edge to edge "
                f"with stride {self.stride} and padding {self.padding}, got {height}×{width}. "
                "Change the padding: size + 2 padding − kernel must be a multiple of the stride."
            )
        shape = (self.kernel, self.kernel, turns, channels, self.width)
        spread = nn.initializers.lecun_normal(in_axis=(0, 1, 2, 3))
        filters = self.param("filter", spread, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        bank = jnp.stack([turn(filters, k, (0, 1), 2) for k in range(TURNS)], axis=-2)
        around = (self.padding, self.padding)
        x = jnp.pad(x, ((0, 0), around, around, (0, 0), (0, 0)))
        size = span // self.stride + 1
        reach = self.stride * (size - 1) + 1
        patches = [
            x[:, i : i + reach : self.stride, j : j + reach : self.stride]
            for i in range(self.kernel)
            for j in range(self.kernel)
        ]
        flat = jnp.stack(patches, axis=3).reshape(*patches[0].shape[:3], -1)
        found = flat @ bank.reshape(flat.shape[-1], -1)
        return found.reshape(*found.shape[:3], TURNS, self.width) + bias


class EquivariantCNN(nn.Module):
    """Group convolutions with a smooth function after each, then the mean over places and turns.

    Attributes:
      widths: channels of the two convolutions.
      classes: number of logits.
    """

    widths: Sequence[int]
    classes: int

    def setup(self) -> None:
        lifted, width = self.widths
        self.lift = GroupConvolution(lifted, kernel=4, stride=2, padding=1)
        self.convolution = GroupConvolution(width)
        self.head = nn.Dense(self.classes)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of images (n, size, size, channels) of even size, shape (n, classes)."""
        return self.head(self.features(x).mean(axis=(1, 2, 3)))

    def features(self, x: jax.Array) -> jax.Array:
        """Features that turn with the image, shape (n, size/2 − 2, size/2 − 2, 4, width)."""
        return nn.silu(self.convolution(nn.silu(self.lift(x[:, :, :, None]))))


def turn(x: jax.Array, times: int, places: tuple[int, int], turns: int) -> jax.Array:
    """Turn features by quarter turns: their places turn, and every turn becomes a later one.

    Args:
      x: features.
      times: number of quarter turns.
      places: the two axes of places.
      turns: the axis of turns; of size 1 in an image, which has none.
    """
    return jnp.roll(jnp.rot90(x, times, places), times, turns)


def _draw(name: str, label: np.ndarray, told: np.ndarray, file: Path) -> None:
    """How often which digit is taken for which."""
    from sklearn.metrics import ConfusionMatrixDisplay

    from ..plots import figure, save

    fig = figure(4.5, 4.5)
    axes = fig.add_subplot()
    ConfusionMatrixDisplay.from_predictions(label, told, ax=axes, cmap="Blues", colorbar=False)
    axes.set(xlabel="told", ylabel="shown")
    axes.set_title(f"{name}: turned test digits", fontsize=10)
    save(fig, file)
