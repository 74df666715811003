from collections.abc import Callable, Sequence

import flax.linen as nn
import jax


class MLP(nn.Module):
    """Fully connected layers with relu between them; without hidden ones, logistic regression.

    Attributes:
      widths: sizes of the hidden layers.
      classes: number of logits.
    """

    widths: Sequence[int]
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of images or vectors, shape (n, classes)."""
        x = x.reshape(x.shape[0], -1)
        for width in self.widths:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.classes)(x)


class SmoothMLP(nn.Module):
    """Fully connected layers with a smooth function between them.

    Attributes:
      widths: sizes of the hidden layers.
      size: of the output.
      activation: what is between the layers.
    """

    widths: Sequence[int]
    size: int
    activation: Callable[[jax.Array], jax.Array] = nn.tanh

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Vectors (..., size) of vectors of any other size."""
        for width in self.widths:
            x = self.activation(nn.Dense(width)(x))
        return nn.Dense(self.size)(x)


def lipswish(x: jax.Array) -> jax.Array:
    """The function x · sigmoid(x) / 1.1: smooth, with slopes in [−1, 1].

    Source: R. T. Q. Chen, J. Behrmann, D. Duvenaud and J.-H. Jacobsen, *Residual Flows for
    Invertible Generative Modeling* (2019), arXiv:1906.02735, section 3.3.
    """
    return nn.swish(x) / 1.1
