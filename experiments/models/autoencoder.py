from collections.abc import Sequence

import flax.linen as nn
import jax


class Autoencoder(nn.Module):
    """Fully connected layers with tanh between them, back to the size of the input.

    Attributes:
      widths: sizes of the hidden layers.
    """

    widths: Sequence[int]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Reconstructions of vectors, shape (n, size)."""
        size = x.shape[-1]
        for width in self.widths:
            x = nn.tanh(nn.Dense(width)(x))
        return nn.Dense(size)(x)
