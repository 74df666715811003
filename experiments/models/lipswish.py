from collections.abc import Sequence

import flax.linen as nn
import jax

_STEEPEST = 1.1  # slope of x · sigmoid(x)


class LipSwish(nn.Module):
    """Dense layers with x · sigmoid(x) / 1.1 between them, back to the size of the input.

    What is between the layers is smooth, stretches nothing, and has a second derivative where its
    first is largest. The whole contracts if the matrices do.

    Attributes:
      widths: sizes of the hidden layers.
    """

    widths: Sequence[int]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Vectors of the same shape, (..., size)."""
        size = x.shape[-1]
        for width in self.widths:
            x = nn.swish(nn.Dense(width)(x)) / _STEEPEST
        return nn.Dense(size)(x)
