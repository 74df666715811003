"""A generative adversarial network: two players, each with a loss of its own, trained at once.

    ℓ(θ, x) = L_D(D; x, z, G̅) + L_G(G; z, D̅),    z ~ N(0, I) by the key

    L_D = −log σ(D(x)) − log(1 − σ(D(G̅(z)))) + ½ ‖∇ₓ D(x)‖²,    L_G = −log σ(D̅(G(z)))

θ holds the generator G and the discriminator D; nothing is differentiated through the barred ones.
So one gradient holds that of each player's loss in its own parameters, and the Hessian has a block
for each player. Their sum is no objective that a training could bring down: what one player gains
the other one loses, and what either is to minimize moves with the other. Judged is therefore how
far generated images are from real ones, by the energy distance

    2 E|x − y| − E|x − x′| − E|y − y′|,    x, x′ real, y, y′ generated

The penalty of the slope at real images lets two players that are near an equilibrium come to it,
where without it they may circle around.

I. J. Goodfellow et al., *Generative Adversarial Nets* (2014), arXiv:1406.2661, section 3, with its
loss of a generator that does not saturate; L. Mescheder, A. Geiger and S. Nowozin, *Which Training
Methods for GANs do actually Converge?* (2018), arXiv:1801.04406, for the penalty R₁; G. J. Székely
and M. L. Rizzo, *Energy statistics* (2013), for the distance.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient
from scipy.spatial import distance

from .. import data
from ..models import SmoothMLP
from ..problem import Problem, PyTree, Source, batched
from .common import in_precision_of

_DRAWN = 256  # images, always from the same z, to judge by


def digits(name: str, source: Source) -> Problem:
    del source  # the data are built in
    return adversarial(name, data.digits(), latent=16, width=64, batch_size=64, epochs=30)


def adversarial(
    name: str,
    dataset: data.Dataset,
    *,
    latent: int,
    width: int,
    batch_size: int,
    epochs: int,
    against: PyTree | None = None,
) -> Problem:
    """Make the problem of generating images that another network takes for real.

    Measured is the energy distance alone, as `loss`: what examples add to it, averaged over them.
    By few examples, or where the two agree, it can come out below 0. Pixels are from −1 to 1.

    Args:
      name: of the problem.
      dataset: images with pixels from 0 to `scale`; labels play no part.
      latent: size of z.
      width: of the hidden layer of either player.
      batch_size: default batch size.
      epochs: default number of epochs.
      against: parameters of the players whom each plays against; by default those that learn.
    """
    pixels, scale = dataset.train.image[0].size, float(dataset.scale[0])
    generator: Any = SmoothMLP((width,), pixels, jax.nn.silu)
    discriminator: Any = SmoothMLP((width,), 1, jax.nn.silu)

    def init(key: jax.Array) -> PyTree:
        keys = jax.random.split(key)
        return {
            "generator": generator.init(keys[0], jnp.zeros(latent)),
            "discriminator": discriminator.init(keys[1], jnp.zeros(pixels)),
        }

    def generate(params: PyTree, z: jax.Array) -> jax.Array:
        return jnp.tanh(generator.apply(params["generator"], z))

    def real(params: PyTree, example: PyTree) -> jax.Array:
        image = in_precision_of(params, example["image"])
        return 2 * image.reshape(*image.shape[:-3], pixels) / scale - 1

    def loss(params: PyTree, example: PyTree, key: jax.Array) -> jax.Array:
        x = real(params, example)
        z = jax.random.normal(key, (latent,), x.dtype)
        other = stop_gradient(params) if against is None else against

        def judge(players: PyTree, image: jax.Array) -> jax.Array:
            return discriminator.apply(players["discriminator"], image)[0]

        found, slope = jax.value_and_grad(judge, argnums=1)(params, x)
        of_discriminator = jax.nn.softplus(-found) + jnp.sum(jnp.square(slope)) / 2
        of_discriminator += jax.nn.softplus(judge(params, generate(other, z)))
        of_generator = jax.nn.softplus(-judge(other, generate(params, z)))
        return of_discriminator + of_generator

    def samples(params: PyTree) -> jax.Array:
        dtype = jax.tree.leaves(params)[0].dtype
        return generate(params, jax.random.normal(jax.random.key(0), (_DRAWN, latent), dtype))

    def measure(params: PyTree, batch: PyTree) -> dict[str, jax.Array]:
        fake = samples(params)
        of_fakes = jnp.sum(_distances(fake, fake)) / (_DRAWN * (_DRAWN - 1))
        across = _distances(real(params, batch), fake).mean(axis=1)
        return {"loss": 2 * across - batch["to_others"] - of_fakes}

    def plot(params: PyTree, path: Path) -> None:
        _draw(name, np.asarray(jax.jit(samples)(params)), dataset.test.image, path)

    return Problem(
        name=name,
        init=init,
        loss=loss,
        losses=batched(loss),
        measure=measure,
        data=_with_distances(dataset.train, scale),
        test=_with_distances(dataset.test, scale),
        batch_size=batch_size,
        epochs=epochs,
        plot=plot,
    )


def _with_distances(images: data.Images, scale: float) -> dict[str, jax.Array]:
    """The images, and how far each is from the others on average: E|x − x′| by examples."""
    x = 2 * images.image.reshape(len(images.image), -1) / scale - 1
    to_others = distance.cdist(x, x).sum(axis=1) / (len(x) - 1)
    return {"image": jnp.asarray(images.image), "to_others": jnp.asarray(to_others, jnp.float32)}


def _distances(a: jax.Array, b: jax.Array) -> jax.Array:
    """Euclidean distances of all pairs, shape (len(a), len(b)); never differentiated."""
    return jnp.linalg.norm(a[:, None] - b[None], axis=-1)


def _draw(name: str, fake: np.ndarray, image: np.ndarray, file: Path) -> None:
    """Generated images on the left, test images on the right."""
    from ..plots import figure, save

    fig = figure(7, 3.8)
    height, width = image.shape[1:3]
    for axes, title, shown in zip(
        fig.subplots(1, 2), ("generated", "real"), (fake[:64], image[:64]), strict=True
    ):
        tiles = shown.reshape(8, 8, height, width).swapaxes(1, 2).reshape(8 * height, -1)
        axes.imshow(tiles, cmap="gray_r")
        axes.set_title(title, fontsize=10)
        axes.set_axis_off()
    fig.suptitle(name)
    save(fig, file)
