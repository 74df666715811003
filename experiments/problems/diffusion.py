"""A diffusion model: a network that finds the noise in an image, however much there is.

    z = cos(πt/2) x + sin(πt/2) ε,    t ~ U(0, 1),    ε ~ N(0, I)

    ℓ(θ, x) = ‖ε_θ(z, t) − ε‖² / d

Time and noise come from the key, which makes the losses of an example vary more than those of
different examples.

J. Ho, A. Jain and P. Abbeel, *Denoising Diffusion Probabilistic Models* (2020), arXiv:2006.11239,
equation 14; the cosine schedule is that of A. Nichol and P. Dhariwal (2021), arXiv:2102.09672.
"""

from typing import Any

import jax
import jax.numpy as jnp

from .. import data
from ..models import SmoothMLP
from ..problem import Problem, PyTree, Source, batched, example_key
from .common import in_precision_of

_SAMPLES = 8  # of time and noise, to judge by
_FREQUENCIES = 4  # of the time that the network is told


def digits(name: str, source: Source) -> Problem:
    del source  # the data are built in
    return denoising(name, data.digits(), width=128, batch_size=128, epochs=60)


def denoising(
    name: str, dataset: data.Dataset, *, width: int, batch_size: int, epochs: int
) -> Problem:
    """Make the problem of finding noise in images, whose pixels are brought to [−1, 1].

    It is measured by fixed noises, at times spread evenly. Who always answers 0 has loss 1.

    Args:
      name: of the problem.
      dataset: images with pixels from 0 to `scale`; labels play no part.
      width: of the two hidden layers.
      batch_size: default batch size.
      epochs: default number of epochs.
    """
    pixels = dataset.train.image[0].size
    scale = float(dataset.scale[0])
    network: Any = SmoothMLP((width, width), pixels, jax.nn.swish)

    def error(params: PyTree, x: jax.Array, t: jax.Array, noise: jax.Array) -> jax.Array:
        z = jnp.cos(jnp.pi / 2 * t) * x + jnp.sin(jnp.pi / 2 * t) * noise
        angles = jnp.pi / 2 * t * 2.0 ** jnp.arange(_FREQUENCIES)
        given = jnp.concatenate([z, jnp.cos(angles), jnp.sin(angles)]).astype(z.dtype)
        return jnp.mean(jnp.square(network.apply(params, given) - noise))

    def image_of(params: PyTree, example: PyTree) -> jax.Array:
        return 2 * in_precision_of(params, example["image"]).ravel() / scale - 1

    def loss(params: PyTree, example: PyTree, key: jax.Array) -> jax.Array:
        x, keys = image_of(params, example), jax.random.split(key)
        t = jax.random.uniform(keys[0], (), x.dtype)
        return error(params, x, t, jax.random.normal(keys[1], x.shape, x.dtype))

    def measure_one(params: PyTree, example: PyTree) -> dict[str, jax.Array]:
        x = image_of(params, example)
        keys = jax.random.split(example_key(x), 2)
        t = (jnp.arange(_SAMPLES) + jax.random.uniform(keys[0], (), x.dtype)) / _SAMPLES
        noise = jax.random.normal(keys[1], (_SAMPLES, *x.shape), x.dtype)
        return {"loss": jax.vmap(error, (None, None, 0, 0))(params, x, t, noise).mean()}

    return Problem(
        name=name,
        init=lambda key: network.init(key, jnp.zeros(pixels + 2 * _FREQUENCIES)),
        loss=loss,
        losses=batched(loss),
        measure=lambda params, batch: jax.vmap(measure_one, (None, 0))(params, batch),
        data={"image": jnp.asarray(dataset.train.image)},
        test={"image": jnp.asarray(dataset.test.image)},
        batch_size=batch_size,
        epochs=epochs,
    )
