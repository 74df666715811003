import flax.linen as nn
import jax
import jax.numpy as jnp


class Recurrent(nn.Module):
    """Gated recurrent units along a series, which are left as they are where nothing is seen.

        r, u = sigmoid(xᵣ + hᵣ), sigmoid(xᵤ + hᵤ),    h ← u h + (1 − u) tanh(xₙ + r hₙ)

    where x and h are affine in the input and in the state. As Flax's cell, but two matrix products
    for its six, of which that of the inputs is one for the whole series: that counts where a
    program is compiled and run in second order.

    Attributes:
      width: of the state.
      reverse: whether to begin at the end.
    """

    width: int
    reverse: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, seen: jax.Array, start: jax.Array | None = None) -> jax.Array:
        """States (n, width), each with what came before and its own input.

        Inputs are x (n, size), whether there are any, seen (n,), and a state to start with
        (width,), which is otherwise 0.
        """
        joint = 3 * self.width
        kernel = self.param("kernel", nn.initializers.orthogonal(), (self.width, joint))
        bias = self.param("bias", nn.initializers.zeros, (joint,))

        def advance(state: jax.Array, given: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
            x, seen = given
            h = state @ kernel + bias
            gates = nn.sigmoid((x + h)[: 2 * self.width])
            reset, update = jnp.split(gates, 2)
            fresh = nn.tanh(x[2 * self.width :] + reset * h[2 * self.width :])
            state = jnp.where(seen, update * state + (1 - update) * fresh, state)
            return state, state

        start = jnp.zeros(self.width, kernel.dtype) if start is None else start
        inputs = nn.Dense(joint, use_bias=False)(x)
        return jax.lax.scan(advance, start, (inputs, seen), reverse=self.reverse)[1]


class GRU(nn.Module):
    """Gated recurrent units that read tokens and tell the next.

    Attributes:
      tokens: size of the alphabet.
      size: of what stands for a token.
      width: of the state.
    """

    tokens: int
    size: int = 16
    width: int = 32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of the next token, shape (n, length, tokens), of integers (n, length)."""
        # One network for all series of a batch.
        many = nn.vmap(Recurrent, variable_axes={"params": None}, split_rngs={"params": False})
        states = many(self.width)(nn.Embed(self.tokens, self.size)(x), jnp.ones(x.shape, bool))
        return nn.Dense(self.tokens)(states)
