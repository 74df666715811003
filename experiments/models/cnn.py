from collections.abc import Sequence

import flax.linen as nn
import jax

from .convolution import Convolution


class CNN(nn.Module):
    """3×3 convolutions of stride 2 with group normalization, then the mean over the image.

    Group normalization keeps the examples of a batch independent, and strides are fast in
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
        for width in self.widths:
            x = Convolution(width, stride=2)(x)
            x = nn.relu(nn.GroupNorm(num_groups=None, group_size=self.group_size)(x))
        return nn.Dense(self.classes)(x.mean(axis=(1, 2)))
