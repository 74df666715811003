import flax.linen as nn
import jax


class LogisticRegression(nn.Module):
    """One affine map: a convex problem.

    Attributes:
      classes: number of logits.
    """

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of images or vectors, shape (n, classes)."""
        return nn.Dense(self.classes)(x.reshape(x.shape[0], -1))
