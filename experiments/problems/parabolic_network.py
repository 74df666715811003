"""A convolutional network that is a parabolic partial differential equation, in explicit steps.

    Y ← Y − h Kᵀ tanh(K Y + b),    K a convolution with zeros around the image, other in each step

As −Kᵀ D K has no positive eigenvalue for any diagonal D ≥ 0, the equation lets no two inputs drift
apart; nor do its steps as long as h ‖K‖² ≤ 2, which training may leave behind.

L. Ruthotto and E. Haber, *Deep Neural Networks Motivated by Partial Differential Equations* (2018),
arXiv:1804.04272, for the parabolic form; here without normalization of K Y.
"""

import dataclasses
from pathlib import Path
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from .. import data
from ..models import Convolution
from ..problem import Problem, PyTree, Source
from .classification import classification


def digits(name: str, source: Source) -> Problem:
    """Make the problem of telling digits; measured is the accuracy as well."""
    del source  # the data are built in
    dataset, module = data.digits(), ParabolicCNN(8, 6, 10)
    problem = classification(name, dataset, module, batch_size=64, epochs=30)

    def plot(params: PyTree, path: Path) -> None:
        shown = problem.test["image"][:40] / dataset.scale
        states = jax.jit(lambda x: cast(jax.Array, module.apply(params, x, method="states")))(shown)
        _draw(name, np.asarray(states), dataset.test.label[:40], path)

    return dataclasses.replace(problem, plot=plot)


class ParabolicCNN(nn.Module):
    """A convolution of stride 2, steps of a parabolic equation, and a linear layer.

    Attributes:
      width: number of channels.
      steps: of the equation, with a convolution each.
      classes: number of logits.
      h: length of a step.
    """

    width: int
    steps: int
    classes: int
    h: float = 0.5

    def setup(self) -> None:
        self.opening = Convolution(self.width, stride=2)
        spread = nn.initializers.lecun_normal(in_axis=(1, 2, 3), batch_axis=(0,))
        self.kernels = self.param("kernels", spread, (self.steps, 3, 3, self.width, self.width))
        self.biases = self.param("biases", nn.initializers.zeros, (self.steps, self.width))
        self.head = nn.Dense(self.classes)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of images (n, height, width, channels), shape (n, classes)."""
        return self.head(self.states(x)[-1].reshape(len(x), -1))

    def states(self, x: jax.Array) -> jax.Array:
        """The state before each step and after the last, (steps + 1, n, height/2, width/2, c)."""

        def step(y: jax.Array, layer: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            return parabolic_step(y, *layer, self.h), y

        last, before = jax.lax.scan(step, nn.tanh(self.opening(x)), (self.kernels, self.biases))
        return jnp.concatenate([before, last[None]])


def parabolic_step(y: jax.Array, kernel: jax.Array, bias: jax.Array, h: float) -> jax.Array:
    """Y − h Kᵀ tanh(K Y + b), of states (n, height, width, channels)."""
    return y - h * convolve(nn.tanh(convolve(y, kernel) + bias), adjoint(kernel))


def convolve(y: jax.Array, kernel: jax.Array) -> jax.Array:
    """K Y: the states (n, height, width, in) by a kernel (3, 3, in, out), with zeros around."""
    _, height, width, _ = y.shape
    padded = jnp.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)))
    patches = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(patches, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def adjoint(kernel: jax.Array) -> jax.Array:
    """The kernel of Kᵀ: mirrored in space, with its channels exchanged."""
    return jnp.flip(kernel, (0, 1)).swapaxes(2, 3)


def _draw(name: str, states: np.ndarray, label: np.ndarray, file: Path) -> None:
    """Distances between the states of pairs of test digits, step by step."""
    from ..plots import figure, save, tidy

    flat = states.reshape(*states.shape[:2], -1)
    first, second = np.triu_indices(len(label), 1)
    distance = np.linalg.norm(flat[:, first] - flat[:, second], axis=-1)
    fig = figure(5.5, 4)
    axes = fig.add_subplot()
    for same, color in ((False, "C1"), (True, "C0")):
        chosen = distance[:, (label[first] == label[second]) == same]
        low, middle, high = np.quantile(chosen, (0.05, 0.5, 0.95), axis=1)
        axes.plot(middle, color=color, label="of the same digit" if same else "of other digits")
        axes.fill_between(range(len(middle)), low, high, color=color, alpha=0.2, lw=0)
    axes.set(xlabel="steps", ylabel="distance", ylim=(0, None))
    axes.set_title(f"{name}: pairs of test images (median, 90 %)", fontsize=10)
    axes.legend(frameon=False)
    tidy(axes)
    save(fig, file)
