"""A variational autoencoder: images as noisy views of a few normal variables.

    z ~ N(0, I),    pixel ~ Bernoulli(decoder(z)),    q(z | x) = N(m(x), s(x)²)

    ℓ(θ, x) = Σ KL(Bernoulli(x) ‖ Bernoulli(decoder(z))) + KL(q ‖ N(0, I)),    z = m + s ε

The gray value of a pixel is taken for the probability that it is black. The loss is minus the
lower bound of the likelihood, but for the entropy of the pixels, which no θ changes. The noise ε
comes from the key.

D. P. Kingma and M. Welling, *Auto-Encoding Variational Bayes* (2014), arXiv:1312.6114.
"""

from typing import Any

import jax
import jax.numpy as jnp

from .. import data
from ..models import SmoothMLP
from ..problem import Problem, PyTree, Source, batched, example_key
from .common import in_precision_of, kl

_SAMPLES = 4  # of z, to judge by


def digits(name: str, source: Source) -> Problem:
    del source  # the data are built in
    return autoencoder(name, data.digits(), latent=8, width=64, batch_size=64, epochs=30)


def autoencoder(
    name: str, dataset: data.Dataset, *, latent: int, width: int, batch_size: int, epochs: int
) -> Problem:
    """Make the problem of learning a density of images.

    The loss is in nats for each image; it is measured by fixed samples of z.

    Args:
      name: of the problem.
      dataset: images with pixels from 0 to `scale`; labels play no part.
      latent: size of z.
      width: of the hidden layer of encoder and decoder.
      batch_size: default batch size.
      epochs: default number of epochs.
    """
    pixels = dataset.train.image[0].size
    scale = float(dataset.scale[0])
    encoder: Any = SmoothMLP((width,), 2 * latent)
    decoder: Any = SmoothMLP((width,), pixels)

    def init(key: jax.Array) -> PyTree:
        keys = jax.random.split(key)
        return {
            "encoder": encoder.init(keys[0], jnp.zeros(pixels)),
            "decoder": decoder.init(keys[1], jnp.zeros(latent)),
        }

    def loss(params: PyTree, example: PyTree, key: jax.Array) -> jax.Array:
        x = in_precision_of(params, example["image"]).ravel() / scale
        mean, log_deviation = jnp.split(encoder.apply(params["encoder"], x), 2)
        deviation = jnp.exp(log_deviation)
        z = mean + deviation * jax.random.normal(key, mean.shape, mean.dtype)
        logits = decoder.apply(params["decoder"], z)
        missed = jnp.sum(_cross_entropy(x, logits) - _entropy(x))
        return missed + kl(mean, deviation)

    def measure(params: PyTree, batch: PyTree) -> dict[str, jax.Array]:
        def one(image: jax.Array) -> jax.Array:
            keys = jax.random.split(example_key(image.astype(jnp.float32)), _SAMPLES)
            return jax.vmap(lambda key: loss(params, {"image": image}, key))(keys).mean()

        return {"loss": jax.vmap(one)(batch["image"])}

    return Problem(
        name=name,
        init=init,
        loss=loss,
        losses=batched(loss),
        measure=measure,
        data={"image": jnp.asarray(dataset.train.image)},
        test={"image": jnp.asarray(dataset.test.image)},
        batch_size=batch_size,
        epochs=epochs,
    )


def _cross_entropy(x: jax.Array, logits: jax.Array) -> jax.Array:
    """Minus the log-likelihood of gray values, pixel by pixel; smooth in the logits."""
    return -x * jax.nn.log_sigmoid(logits) - (1 - x) * jax.nn.log_sigmoid(-logits)


def _entropy(x: jax.Array) -> jax.Array:
    """What the cross-entropy of gray values is at least, pixel by pixel."""
    return -jax.scipy.special.xlogy(x, x) - jax.scipy.special.xlogy(1 - x, 1 - x)
