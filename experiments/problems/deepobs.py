"""Two problems of DeepOBS, for which tuned baselines are published.

`quadratic_deep`: ℓ(θ, x) = ½ (θ − x)ᵀ Q (θ − x) in 100 dimensions, x ~ N(0, 0.6² I). Of the
eigenvalues of Q, 90 lie between 0 and 1 and 10 between 30 and 60. The mean over the data does not
vanish: no θ is near every x.

`mnist_vae`: a variational autoencoder with convolutions, dropout and 8 latent variables,

    ℓ(θ, x) = ‖x − decoder(z)‖² + KL(q(z | x) ‖ N(0, I)),    z = m + s ε.

Source: F. Schneider, L. Balles and P. Hennig, *DeepOBS: A Deep Learning Optimizer Benchmark Suite*
(2019), arXiv:1903.05499; fsschneider/DeepOBS, `tensorflow/testproblems`.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import glorot_uniform, zeros

from .. import data
from ..problem import Problem, PyTree, Source, batched, example_key, first
from .common import deterministic, in_precision_of, kl

DIMENSION, EXAMPLES, BATCH_SIZE, NOISE = 100, 1000, 128, 0.6
LATENT = 8
_KERNEL = 4  # pixels along each side


def quadratic(name: str, source: Source) -> Problem:
    """`quadratic_deep`; the parameters are θ, of shape (100,), and begin at 1."""
    del source  # the data are drawn
    curvature = jnp.asarray(hessian(), jnp.float32)

    def of_batch(params: PyTree, batch: PyTree) -> jax.Array:
        away = params - in_precision_of(params, batch["x"])
        return 0.5 * jnp.sum(away * (away @ curvature.astype(away.dtype)), axis=1)

    loss, losses = deterministic(of_batch)
    return Problem(
        name=name,
        init=lambda key: jnp.ones(DIMENSION),
        loss=loss,
        losses=losses,
        measure=lambda params, batch: {"loss": of_batch(params, batch)},
        data=_points(42),
        # As theirs, without an incomplete batch.
        test=first(_points(43), EXAMPLES // BATCH_SIZE * BATCH_SIZE),
        batch_size=BATCH_SIZE,
        epochs=100,
    )


def hessian() -> np.ndarray:
    """Q, float64 of shape (100, 100): eigenvalues and rotation of one random generator."""
    rng = np.random.RandomState(42)
    eigenvalues = np.concatenate([rng.uniform(0, 1, 90), rng.uniform(30, 60, 10)])
    rotation = _rotation(rng)
    return rotation.T @ (eigenvalues[:, None] * rotation)


def _rotation(rng: np.random.RandomState) -> np.ndarray:
    """A rotation drawn uniformly, by reflections in more and more dimensions.

    Source: P. Diaconis and M. Shahshahani, *The subgroup algorithm* (1987).
    """
    angle = 2 * np.pi * rng.uniform()
    turned = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    for size in range(3, DIMENSION + 1):
        point = rng.normal(size=size)
        mirror = np.eye(size)[0] - point / np.linalg.norm(point)
        mirror /= np.linalg.norm(mirror)
        larger = np.eye(size)
        larger[1:, 1:] = turned
        turned = larger - 2 * np.outer(mirror, mirror @ larger)
    return -turned


def _points(seed: int) -> dict[str, jax.Array]:
    x = np.random.RandomState(seed).normal(0, NOISE, (EXAMPLES, DIMENSION))
    return {"x": jnp.asarray(x, jnp.float32)}


def mnist_vae(name: str, source: Source) -> Problem:
    """`mnist_vae`; judged without dropout, by a sample of z for each image."""
    dataset = data.prepared("mnist", source.data_dir, source.report)
    return autoencoder(name, dataset, batch_size=64, epochs=50)


def autoencoder(name: str, dataset: data.Dataset, *, batch_size: int, epochs: int) -> Problem:
    """Make the problem of `mnist_vae` with other images.

    Args:
      name: of the problem.
      dataset: images of 28×28 pixels from 0 to 255; labels play no part.
      batch_size: default batch size.
      epochs: default number of epochs.
    """
    module = Autoencoder()

    def loss(
        params: PyTree, example: PyTree, key: jax.Array, deterministic: bool = False
    ) -> jax.Array:
        x = in_precision_of(params, example["image"]) / 255
        noise, dropout = jax.random.split(key)
        found: Any = module.apply(params, x, noise, deterministic, rngs={"dropout": dropout})
        reconstruction, mean, log_deviation = found
        missed = jnp.sum(jnp.square(reconstruction - x.ravel()))
        return missed + kl(mean, jnp.exp(log_deviation))

    def measure(params: PyTree, batch: PyTree) -> dict[str, jax.Array]:
        def one(image: jax.Array) -> jax.Array:
            key = example_key(image.astype(jnp.float32))
            return loss(params, {"image": image}, key, deterministic=True)

        return {"loss": jax.vmap(one)(batch["image"])}

    return Problem(
        name=name,
        init=lambda key: module.init(key, jnp.zeros((28, 28, 1)), key, True),
        loss=loss,
        losses=batched(loss),
        measure=measure,
        data={"image": jnp.asarray(dataset.train.image)},
        test={"image": jnp.asarray(dataset.test.image)},
        batch_size=batch_size,
        epochs=epochs,
        evaluations=4,  # which take as long as steps do
    )


class Convolution(nn.Module):
    """4×4 convolution as one matrix product over patches, or its transpose, as TensorFlow pads.

    Attributes:
      width: number of output channels.
      stride: 1 or 2 pixels from one output to the next; of the transpose, from one input.
      transposed: spread the pixels in place of gathering them.
    """

    width: int
    stride: int = 1
    transposed: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map an image (height, width, channels) to one of height/stride or height·stride."""
        step = 1 if self.transposed else self.stride
        height, width = (
            side * self.stride if self.transposed else side // self.stride for side in x.shape[:2]
        )
        # Zeros before, after and between the pixels.
        around = (2, self.stride, self.stride - 1) if self.transposed else (1, 3 - self.stride, 0)
        x = jax.lax.pad(x, jnp.zeros((), x.dtype), (around, around, (0, 0, 0)))
        patches = [
            x[i : i + height * step : step, j : j + width * step : step]
            for i in range(_KERNEL)
            for j in range(_KERNEL)
        ]
        shape = (_KERNEL, _KERNEL, x.shape[-1], self.width)
        kernel = self.param("kernel", glorot_uniform(), shape).reshape(-1, self.width)
        return jnp.concatenate(patches, axis=-1) @ kernel + self.param("bias", zeros, (self.width,))


class Autoencoder(nn.Module):
    """Encoder and decoder of one image of 28×28 pixels."""

    @nn.compact
    def __call__(
        self, x: jax.Array, noise: jax.Array, deterministic: bool
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Reconstruction (784,), mean (8,) and logarithm of the deviation (8,) of z.

        Args:
          x: an image (28, 28, 1), from 0 to 1.
          noise: key of ε.
          deterministic: without dropout.
        """

        def dropout(x: jax.Array) -> jax.Array:
            return nn.Dropout(0.2)(x, deterministic=deterministic)

        def dense(size: int) -> nn.Dense:
            return nn.Dense(size, kernel_init=glorot_uniform())

        for stride in (2, 2, 1):
            x = dropout(_leaky(Convolution(64, stride)(x)))
        mean = dense(LATENT)(x.ravel())
        log_deviation = 0.5 * dense(LATENT)(x.ravel())
        z = mean + jnp.exp(log_deviation) * jax.random.normal(noise, mean.shape, mean.dtype)
        y = _leaky(dense(49)(_leaky(dense(24)(z)))).reshape(7, 7, 1)
        for stride in (2, 1):
            y = dropout(nn.relu(Convolution(64, stride, transposed=True)(y)))
        y = nn.relu(Convolution(64, transposed=True)(y))
        return nn.sigmoid(dense(28 * 28)(y.ravel())), mean, log_deviation


def _leaky(x: jax.Array) -> jax.Array:
    return nn.leaky_relu(x, 0.3)
