from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp


class VectorField(nn.Module):
    """Right-hand side of a differential equation: dense layers with tanh between them.

    Every layer sees the time. Tanh is smooth, and has rules in Taylor mode.

    Attributes:
      widths: sizes of the hidden layers.
    """

    widths: Sequence[int]

    @nn.compact
    def __call__(self, t: jax.Array, y: jax.Array) -> jax.Array:
        """dy/dt at times of shape () and states of shape (..., size), shaped like the states."""
        size, time = y.shape[-1], jnp.broadcast_to(t, (*y.shape[:-1], 1)).astype(y.dtype)
        for width in self.widths:
            y = nn.tanh(nn.Dense(width)(jnp.concatenate([y, time], axis=-1)))
        return nn.Dense(size)(jnp.concatenate([y, time], axis=-1))
