"""A spatial transformer: a network that first chooses where to look in an image.

    A = 0.6 I + ½ tanh(localization(image)),    (y, x)(s, t) = A (s, t, 1)ᵀ on a grid of (s, t)

    seen(s, t) = Σᵢⱼ image[i, j] B(y(s, t) − i) B(x(s, t) − j)

A second network tells the digit from what is seen. The images are digits that are shifted, turned
and scaled on a larger canvas. B is the cubic B-spline. The usual kernel of a bilinear interpolation
is a hat, whose second derivatives are 0 or do not exist; those of B are continuous. The tanh, which
is not in the publication either, keeps the grid near the image: around it there is nothing to learn
from, and no way back.

M. Jaderberg, K. Simonyan, A. Zisserman and K. Kavukcuoglu, *Spatial Transformer Networks* (2015),
arXiv:1506.02025, sections 3.1 to 3.3, equation 3 with another kernel.
"""

import dataclasses
from pathlib import Path
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from .. import data
from ..models import SmoothMLP
from ..problem import Problem, PyTree, Source
from .classification import classification

CANVAS, COPIES = 16, 4
_TURN, _SCALES, _SHIFT = np.pi / 4, (0.7, 1.2), 3.0  # at most, either way, and in pixels
_GRAY = 15.0  # values between two of the 17 of a digit, to keep what interpolation gives
_AT_FIRST, _CHANGE = 0.6, 0.5  # part of the image that the grid spans, and by how much it may move


def digits(name: str, source: Source) -> Problem:
    """Make the problem of telling digits wherever they are; measured is the accuracy as well."""
    del source  # the data are built in
    dataset, module = moved_digits(), SpatialTransformer(16, 32, 10)
    problem = classification(name, dataset, module, batch_size=64, epochs=7)

    def plot(params: PyTree, path: Path) -> None:
        shown = problem.test["image"][:8] / dataset.scale
        places, seen = jax.jit(lambda x: cast(PyTree, module.apply(params, x, method="look")))(
            shown
        )
        _draw(name, np.asarray(shown[..., 0]), np.asarray(places), np.asarray(seen), path)

    return dataclasses.replace(problem, plot=plot)


def moved_digits() -> data.Dataset:
    """The built-in digits on canvases of 16×16 pixels from 0 to 240, for training four of each.

    Where an image is bright, a model sees numbers up to 4, so that the mean of squares is near 1.
    """
    whole = data.digits()
    several = data.Images(*(np.repeat(leaf, COPIES, axis=0) for leaf in whole.train))
    train, test = moved(several, 0, CANVAS), moved(whole.test, 1, CANVAS)
    return data.Dataset(train, test, whole.offset, np.full(1, 60, np.float32))


def moved(images: data.Images, seed: int, size: int) -> data.Images:
    """Turn, scale and shift every image by random numbers, about the center of a canvas.

    Args:
      images: of one channel, with pixels from 0 to 16.
      seed: of the random numbers.
      size: of the canvas.
    """
    rng = np.random.default_rng(seed)
    count = len(images.image)
    angle = rng.uniform(-_TURN, _TURN, count)
    scale = rng.uniform(*_SCALES, count)
    shift = rng.uniform(-_SHIFT, _SHIFT, (count, 2))
    center = (np.array(images.image.shape[1:3]) - 1) / 2
    canvas = np.empty((count, size, size, 1), np.uint8)
    for row in range(count):
        cosine, sine = np.cos(angle[row]), np.sin(angle[row])
        back = np.array([[cosine, sine], [-sine, cosine]]) / scale[row]
        offset = center - back @ ((size - 1) / 2 + shift[row])
        pixels = _GRAY * images.image[row, ..., 0].astype(float)
        found = ndimage.affine_transform(pixels, back, offset, (size, size), order=1)
        canvas[row, ..., 0] = np.rint(found)
    return data.Images(canvas, images.label)


class SpatialTransformer(nn.Module):
    """Classifies what it sees at places that it chooses: an affine map of a regular grid.

    In the units of the map an image reaches from −1 to 1. At first the grid spans its middle.

    Attributes:
      localization_width: of the hidden layer that chooses the six numbers of the map.
      width: of the hidden layer of the classifier.
      classes: number of logits.
      grid: places that are looked at, in each direction.
    """

    localization_width: int
    width: int
    classes: int
    grid: int = 8

    def setup(self) -> None:
        self.hidden = nn.Dense(self.localization_width)
        self.change = nn.Dense(6, kernel_init=nn.initializers.zeros)
        self.classifier = SmoothMLP((self.width,), self.classes)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of images (n, height, width, 1), shape (n, classes)."""
        return self.classifier(self.look(x)[1])

    def look(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Places (n, grid², 2) in pixels, row and column, and what is seen there (n, grid²)."""
        n, height, width, _ = x.shape
        coarse = nn.avg_pool(x, (2, 2), (2, 2)).reshape(n, -1)
        change = nn.tanh(self.change(nn.tanh(self.hidden(coarse)))).reshape(n, 2, 3)
        affine = _AT_FIRST * jnp.eye(2, 3) + _CHANGE * change
        line = (2 * jnp.arange(self.grid) + 1) / self.grid - 1
        regular = jnp.stack([*jnp.meshgrid(line, line, indexing="ij"), jnp.ones((self.grid,) * 2)])
        places = jnp.einsum("nij,jp->npi", affine, regular.reshape(3, -1).astype(x.dtype))
        size = jnp.array([height, width])
        places = (places + 1) * size / 2 - 0.5
        return places, jax.vmap(interpolate)(x[..., 0], places)


def interpolate(image: jax.Array, places: jax.Array) -> jax.Array:
    """Values of an image (height, width) between its pixels, at places (n, 2), shape (n,).

    They are smoothed a little, and 0 around the image.
    """
    rows, columns = (jnp.arange(size, dtype=places.dtype) for size in image.shape)
    of_rows = cubic_b_spline(places[:, :1] - rows)
    of_columns = cubic_b_spline(places[:, 1:] - columns)
    return jnp.sum((of_rows @ image.astype(places.dtype)) * of_columns, axis=1)


def cubic_b_spline(t: jax.Array) -> jax.Array:
    """The density of the sum of four numbers that are uniform on (−½, ½): 0 for |t| ≥ 2.

    Example:
      >>> cubic_b_spline(jnp.arange(3.0)) * 6
      Array([4., 1., 0.], dtype=float32)
    """
    t = jnp.abs(t)
    return (jnp.maximum(2 - t, 0) ** 3 - 4 * jnp.maximum(1 - t, 0) ** 3) / 6


def _draw(name: str, image: np.ndarray, places: np.ndarray, seen: np.ndarray, file: Path) -> None:
    """Test images with the outlines of where the network looks, above what it sees there."""
    from ..plots import figure, save

    grid = round(np.sqrt(seen.shape[1]))
    corners = np.array([0, grid - 1, grid**2 - 1, grid**2 - grid, 0])
    fig = figure(1.2 * len(image), 2.8)
    panels = fig.subplots(2, len(image))
    for index, (above, below) in enumerate(panels.T):
        above.imshow(image[index], cmap="gray_r")
        outline = places[index][corners]
        above.plot(outline[:, 1], outline[:, 0], color="C0", lw=1.2)
        above.set(xlim=(-0.5, image.shape[2] - 0.5), ylim=(image.shape[1] - 0.5, -0.5))
        below.imshow(seen[index].reshape(grid, grid), cmap="gray_r")
    for axes in panels.ravel():
        axes.set_axis_off()
    fig.suptitle(f"{name}: where test images are looked at, and what is seen there", fontsize=10)
    save(fig, file)
