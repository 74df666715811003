from collections.abc import Sequence

import flax.linen as nn
import jax


class CNN(nn.Module):
    """3×3 convolutions with group normalization, average pooling between them.

    Group normalization keeps the examples of a batch independent, and average pooling is fast in
    forward mode, where max pooling is not.

    Attributes:
      widths: channels of the convolutions, each a multiple of `group_size`.
      classes: number of logits.
      group_size: channels normalized together.
    """

    widths: Sequence[int]
    classes: int
    group_size: int = 8

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of images (n, height, width, channels), shape (n, classes)."""
        for index, width in enumerate(self.widths):
            if index:
                x = nn.avg_pool(x, (2, 2), strides=(2, 2))
            x = nn.Conv(width, (3, 3), use_bias=False)(x)
            x = nn.relu(nn.GroupNorm(num_groups=None, group_size=self.group_size)(x))
        return nn.Dense(self.classes)(x.mean(axis=(1, 2)))
