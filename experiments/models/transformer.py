import flax.linen as nn
import jax
import jax.numpy as jnp


class Transformer(nn.Module):
    """Decoder of one kind of token: attention to the past, pre-normalized residual blocks.

    Attributes:
      tokens: size of the alphabet.
      width: of the residual stream, a multiple of `heads`.
      heads: of the attention.
      blocks: attention and perceptron pairs.
    """

    tokens: int
    width: int = 32
    heads: int = 2
    blocks: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of the next token, shape (n, length, tokens), of integers (n, length)."""
        length = x.shape[1]
        places = self.param("places", nn.initializers.normal(0.02), (length, self.width))
        x = nn.Embed(self.tokens, self.width)(x) + places
        for _ in range(self.blocks):
            x = x + self._attend(nn.LayerNorm()(x))
            inner = nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(x)))
            x = x + nn.Dense(self.width)(inner)
        return nn.Dense(self.tokens)(nn.LayerNorm()(x))

    def _attend(self, x: jax.Array) -> jax.Array:
        n, length, width = x.shape
        joint = nn.Dense(3 * width)(x).reshape(n, length, 3, self.heads, width // self.heads)
        query, key, value = joint[:, :, 0], joint[:, :, 1], joint[:, :, 2]
        scores = jnp.einsum("nqhd,nkhd->nhqk", query, key) / (width // self.heads) ** 0.5
        past = jnp.tril(jnp.ones((length, length), bool))
        weights = nn.softmax(jnp.where(past, scores, -1e9))
        mixed = jnp.einsum("nhqk,nkhd->nqhd", weights, value).reshape(n, length, width)
        return nn.Dense(width)(mixed)
