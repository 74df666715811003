from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp


class Convolution(nn.Module):
    """3×3 convolution as one matrix product over patches, zeros around the image.

    On CPUs the gradient of XLA's own convolution is ten times slower inside loops and under
    `vmap` over parameters; a matrix product is fast everywhere and in every order of
    differentiation.

    Attributes:
      width: number of output channels.
      stride: pixels from one output to the next.
    """

    width: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images (n, height, width, channels) to (n, ⌈height/s⌉, ⌈width/s⌉, self.width)."""
        _, height, width, _ = x.shape
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        patches = [
            x[:, i : i + height : self.stride, j : j + width : self.stride]
            for i in range(3)
            for j in range(3)
        ]
        return nn.Dense(self.width, use_bias=False)(jnp.concatenate(patches, axis=-1))


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


class ResNet(nn.Module):
    """Residual network for small images, with group normalization.

    A stem, then stages of blocks of two 3×3 convolutions; each stage but the first begins with
    stride 2. Shortcuts have no parameters: they leave out pixels and add channels of zeros. With
    widths (16, 32, 64) and 5 blocks it has 32 layers with weights. Group normalization takes the
    place of batch normalization, so that the examples of a batch stay independent.

    Attributes:
      widths: channels of the stages, each a multiple of `group_size`.
      blocks: in each stage.
      classes: number of logits.
      stem_stride: of the first convolution.
      group_size: channels normalized together.

    Source: He et al. (2016), arXiv 1512.03385, section 4.2.
    """

    widths: Sequence[int]
    blocks: int
    classes: int
    stem_stride: int = 1
    group_size: int = 8

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of images (n, height, width, channels), shape (n, classes)."""
        x = self._normalized(Convolution(self.widths[0], self.stem_stride)(x))
        x = nn.relu(x)
        for stage, width in enumerate(self.widths):
            for block in range(self.blocks):
                x = self._block(x, width, stride=2 if stage and not block else 1)
        return nn.Dense(self.classes)(x.mean(axis=(1, 2)))

    def _block(self, x: jax.Array, width: int, stride: int) -> jax.Array:
        y = nn.relu(self._normalized(Convolution(width, stride)(x)))
        y = self._normalized(Convolution(width)(y))
        shortcut = x[:, ::stride, ::stride]
        more = width - shortcut.shape[-1]
        return nn.relu(y + jnp.pad(shortcut, ((0, 0), (0, 0), (0, 0), (0, more))))

    def _normalized(self, x: jax.Array) -> jax.Array:
        return nn.GroupNorm(num_groups=None, group_size=self.group_size)(x)
