from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp


class Coupling(nn.Module):
    """Logarithmic scales and shifts for one half of a vector, computed from the other half.

    The scales are within exp(±1), by a tanh, so that no layer can blow up.

    Attributes:
      widths: sizes of the hidden layers.
      size: of the half that is to be changed.
    """

    widths: Sequence[int]
    size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Logarithmic scales and shifts, shapes (..., size), of what stays, (..., other size)."""
        for width in self.widths:
            x = nn.tanh(nn.Dense(width)(x))
        log_scale, shift = jnp.split(nn.Dense(2 * self.size)(x), 2, axis=-1)
        return nn.tanh(log_scale), shift
