"""A variational autoencoder of images with bits in place of normal variables.

    z ~ uniform on {0, 1}ⁿ,    pixel ~ Bernoulli(decoder(z)),    q(z | x) = Π Bernoulli(encoder(x))

    ℓ(θ, x) = E_q m(z) + KL(q ‖ uniform),    m(z) = Σ KL(Bernoulli(x) ‖ Bernoulli(decoder(z)))

with the likelihood of `variational_autoencoder`. Nothing can be differentiated through a bit, so
E_q m is estimated in one of two ways, from the key.

Without bias: two codes z₁, z₂ are drawn from q_θ̄, θ̄ = θ, and `leave_one_out` is

    ½ Σᵢ [bᵢ + (m(zᵢ) − bᵢ) q_θ(zᵢ) / q_θ̄(zᵢ)],    bᵢ = m of the other code at θ̄

Nothing is differentiated through θ̄, so that value, gradient and Hessian are those of one function,
and right in expectation. The other code does not depend on zᵢ: as a baseline it takes away what is
common to all codes of an image, and adds no bias.

Relaxed: numbers from (0, 1) stand for the bits, sigmoid((logit + logistic noise) / temperature).
What is minimized is the loss of another model.

J. Foerster et al., *DiCE: The Infinitely Differentiable Monte-Carlo Estimator* (2018),
arXiv:1802.05098; W. Kool, H. van Hoof and M. Welling, *Buy 4 REINFORCE Samples, Get a Baseline for
Free!* (2019), for the baseline; C. J. Maddison, A. Mnih and Y. W. Teh, *The Concrete Distribution*
(2017), arXiv:1611.00712, for the relaxation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.special import entr

from .. import data
from ..models import SmoothMLP
from ..problem import Problem, PyTree, Source, batched, example_key
from .common import in_precision_of

_SAMPLES = 4  # codes of an image, to judge by
_TEMPERATURE = 2 / 3  # of relaxed bits
_SHOWN = 10  # images in a row of the picture

OfCodes = Callable[[PyTree, jax.Array], jax.Array]
_cross_entropy = optax.sigmoid_binary_cross_entropy


def digits(name: str, source: Source, relaxed: bool = False) -> Problem:
    del source  # the data are built in
    sizes = {"bits": 16, "width": 64, "batch_size": 64, "epochs": 30}
    return binary_autoencoder(name, data.digits(), relaxed=relaxed, **sizes)


relaxed_digits = partial(digits, relaxed=True)


def leave_one_out(
    missed: OfCodes, log_q: OfCodes, codes: jax.Array, params: PyTree, drawn_by: PyTree
) -> jax.Array:
    """An estimate of E_q m(z) whose derivatives are without bias as well.

    Args:
      missed: m, `(params, codes) -> (2,)`.
      log_q: log q(z), likewise.
      codes: two, drawn independently from q at `drawn_by`, shape (2, n).
      params: θ, to differentiate by.
      drawn_by: θ̄, the same or other parameters; nothing is differentiated through them.

    Source: arXiv:1802.05098, section 4, for the ratio that differs from 1 in its derivatives only.
    """
    drawn_by = jax.lax.stop_gradient(drawn_by)
    ratio = jnp.exp(log_q(params, codes) - log_q(drawn_by, codes))
    baseline = missed(drawn_by, codes)[::-1]
    return jnp.mean(baseline + (missed(params, codes) - baseline) * ratio)


def binary_autoencoder(
    name: str,
    dataset: data.Dataset,
    *,
    bits: int,
    width: int,
    batch_size: int,
    epochs: int,
    relaxed: bool = False,
    drawn_by: PyTree | None = None,
) -> Problem:
    """Make the problem of learning a density of images.

    The loss is in nats for each image. Measured are it, by fixed samples of bits that are not
    relaxed in any case; the squared `error` of the image that the likeliest code stands for,
    relative to the variance of the pixels; and `code_bits`, KL(q ‖ uniform) in bits, what a code
    says of its image.

    Args:
      name: of the problem.
      dataset: images with pixels from 0 to `scale`; labels play no part.
      bits: of a code.
      width: of the hidden layer of encoder and decoder.
      batch_size: default batch size.
      epochs: default number of epochs.
      relaxed: whether numbers from (0, 1) stand for the bits.
      drawn_by: parameters that draw the bits, θ̄; by default those that learn.
    """
    pixels = dataset.train.image[0].size
    scale = float(dataset.scale[0])
    variance = float(np.mean(np.var(dataset.train.image / scale, axis=0)))
    encoder: Any = SmoothMLP((width,), bits)
    decoder: Any = SmoothMLP((width,), pixels)

    def init(key: jax.Array) -> PyTree:
        keys = jax.random.split(key)
        return {
            "encoder": encoder.init(keys[0], jnp.zeros(pixels)),
            "decoder": decoder.init(keys[1], jnp.zeros(bits)),
        }

    def pixels_of(params: PyTree, example: PyTree) -> jax.Array:
        return in_precision_of(params, example["image"]).ravel() / scale

    def missed(x: jax.Array, params: PyTree, codes: jax.Array) -> jax.Array:
        """The m of codes, in nats."""
        logits = decoder.apply(params["decoder"], 2 * codes - 1)
        return jnp.sum(_cross_entropy(logits, x) - entr(x) - entr(1 - x), axis=-1)

    def log_q(x: jax.Array, params: PyTree, codes: jax.Array) -> jax.Array:
        return -_cross_entropy(encoder.apply(params["encoder"], x), codes).sum(axis=-1)

    def divergence(params: PyTree, x: jax.Array) -> jax.Array:
        """KL(q ‖ uniform) in nats."""
        logits = encoder.apply(params["encoder"], x)
        return jnp.sum(jnp.log(2) - _cross_entropy(logits, jax.nn.sigmoid(logits)))

    def drawn(params: PyTree, x: jax.Array, key: jax.Array, count: int) -> jax.Array:
        probability = jax.nn.sigmoid(encoder.apply(params["encoder"], x))
        return jax.random.bernoulli(key, probability, (count, bits)).astype(x.dtype)

    def expected(params: PyTree, x: jax.Array, key: jax.Array) -> jax.Array:
        """An estimate of E_q m."""
        if relaxed:
            logits = encoder.apply(params["encoder"], x)
            noise = jax.random.logistic(key, logits.shape, logits.dtype)
            return missed(x, params, jax.nn.sigmoid((logits + noise) / _TEMPERATURE))
        drawing = jax.lax.stop_gradient(params if drawn_by is None else drawn_by)
        codes = drawn(drawing, x, key, 2)
        return leave_one_out(partial(missed, x), partial(log_q, x), codes, params, drawing)

    def loss(params: PyTree, example: PyTree, key: jax.Array) -> jax.Array:
        x = pixels_of(params, example)
        return expected(params, x, key) + divergence(params, x)

    def decoded(params: PyTree, codes: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(decoder.apply(params["decoder"], 2 * codes - 1))

    def likeliest(params: PyTree, x: jax.Array) -> jax.Array:
        return (encoder.apply(params["encoder"], x) > 0).astype(x.dtype)

    def measure_one(params: PyTree, example: PyTree) -> dict[str, jax.Array]:
        x = pixels_of(params, example)
        codes = drawn(params, x, example_key(x), _SAMPLES)
        nats = divergence(params, x)
        return {
            "loss": missed(x, params, codes).mean() + nats,
            "error": jnp.mean(jnp.square(decoded(params, likeliest(params, x)) - x)) / variance,
            "code_bits": nats / jnp.log(2),
        }

    def plot(params: PyTree, path: Path) -> None:
        @jax.jit
        def rows(params: PyTree) -> tuple[jax.Array, ...]:
            x = jax.vmap(partial(pixels_of, params))({"image": problem.test["image"][:_SHOWN]})
            codes = jax.random.bernoulli(jax.random.key(0), shape=(_SHOWN, bits)).astype(x.dtype)
            return x, decoded(params, likeliest(params, x)), decoded(params, codes)

        _draw(name, jax.device_get(rows(params)), path)

    problem = Problem(
        name=name,
        init=init,
        loss=loss,
        losses=batched(loss),
        measure=lambda params, batch: jax.vmap(partial(measure_one, params))(batch),
        data={"image": jnp.asarray(dataset.train.image)},
        test={"image": jnp.asarray(dataset.test.image)},
        batch_size=batch_size,
        epochs=epochs,
        plot=plot,
    )
    return problem


def _draw(name: str, rows: tuple[np.ndarray, ...], file: Path) -> None:
    """Test images, what their codes stand for, and what random bits do."""
    from ..plots import figure, save

    side = round(rows[0].shape[-1] ** 0.5)
    tiles = np.pad(np.reshape(rows, (len(rows), -1, side, side)), ((0, 0), (0, 0), (1, 1), (1, 1)))
    height = side + 2
    fig = figure(7.6, 2.6)
    axes = fig.add_subplot()
    axes.imshow(tiles.transpose(0, 2, 1, 3).reshape(len(rows) * height, -1), cmap="gray_r")
    words = ("test image", "by its code", "by random bits")
    axes.set_yticks((np.arange(len(rows)) + 0.5) * height, words)
    axes.tick_params(left=False)
    axes.set_xticks([])
    axes.set_title(name)
    save(fig, file)
