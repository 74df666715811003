from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import variance_scaling


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


class HollowField(nn.Module):
    """Right-hand side of a differential equation whose Jacobian's diagonal is cheap.

        dyᵢ/dt = τᵢ(t, yᵢ, hᵢ),    hᵢ = h(t, all entries of y but yᵢ)

    The Jacobian of h is hollow: its diagonal is zero. So ∂(dyᵢ/dt)/∂yᵢ is that of τᵢ at fixed hᵢ,
    and as every τᵢ has an entry of its own, one forward derivative gives the whole diagonal.

    Attributes:
      features: that every entry is turned into before the others get to see it.
      conditions: size of hᵢ.
      width: of the hidden layer of τᵢ.

    Source: R. T. Q. Chen and D. Duvenaud, *Neural Networks with Cheap Differential Operators*
    (2019), arXiv:1912.03579, section 2; masks in place of its autoregressive networks.
    """

    features: int
    conditions: int
    width: int

    def setup(self) -> None:
        self.seen = _EntryWise(self.features)
        self.others = _OfOthers(self.conditions)
        self.hidden = _EntryWise(self.width)
        self.slope = _EntryWise(1)

    def __call__(self, t: jax.Array, y: jax.Array) -> jax.Array:
        """dy/dt at a time of shape () and a state of shape (size,), shaped like the state."""
        return self.transform(t, y, self.condition(t, y))

    def condition(self, t: jax.Array, y: jax.Array) -> jax.Array:
        """What every entry is told of the others, shape (size, conditions)."""
        return nn.tanh(self.others(nn.tanh(self.seen(_columns(t, y)))))

    def transform(self, t: jax.Array, y: jax.Array, h: jax.Array) -> jax.Array:
        """dy/dt, of which entry i is made of y[i] and h[i] alone."""
        return self.slope(nn.tanh(self.hidden(_columns(t, y, h))))[:, 0]


class _EntryWise(nn.Module):
    """A dense layer for every entry of the state: (size, n) to (size, width)."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        spread = variance_scaling(1.0, "fan_in", "truncated_normal", batch_axis=0)
        kernel = self.param("kernel", spread, (*x.shape, self.width))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[0], self.width))
        return jnp.einsum("in,inw->iw", x, kernel) + bias


class _OfOthers(nn.Module):
    """A dense layer whose row i does not see row i of the input: (size, n) to (size, width)."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size, n = x.shape
        spread = variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=(0, 1), batch_axis=2)
        kernel = self.param("kernel", spread, (size, n, size, self.width))
        bias = self.param("bias", nn.initializers.zeros, (size, self.width))
        hollow = kernel * (1 - jnp.eye(size, dtype=x.dtype))[:, None, :, None]
        return jnp.einsum("jn,jniw->iw", x, hollow) + bias


def _columns(t: jax.Array, y: jax.Array, *more: jax.Array) -> jax.Array:
    time = jnp.broadcast_to(t, (y.size, 1)).astype(y.dtype)
    return jnp.concatenate([time, y[:, None], *more], axis=1)
