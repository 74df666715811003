from collections.abc import Sequence

import flax.linen as nn
import jax


class TanhMLP(nn.Module):
    """Fully connected layers with tanh between them: smooth.

    Attributes:
      widths: sizes of the hidden layers.
      size: of the output.
    """

    widths: Sequence[int]
    size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Vectors (..., size) of vectors of any other size."""
        for width in self.widths:
            x = nn.tanh(nn.Dense(width)(x))
        return nn.Dense(self.size)(x)
