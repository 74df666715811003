"""A generative adversarial network: two networks, two optimizers.

Modeled on Haiku's example `mnist_gan.ipynb`: adam(1e-4, b1=0.5, b2=0.9) for each network, 20,001
steps, batches of 64, convolutions, 20 latent numbers. Here: digits of 8 by 8 pixels, perceptrons
with one layer of 128, 2,000 steps. The losses of the two players say nothing of the images: judged
is the energy distance, 2 E|x − y| − E|x − x'| − E|y − y'|, between test images and generated ones.
"""

import jax
import jax.numpy as jnp
import optax

from .program import Program, digits, sample

LATENT, WIDTH = 20, 128


def _net(params, x):
    return jax.nn.leaky_relu(x @ params["w1"] + params["b1"], 0.2) @ params["w2"] + params["b2"]


def _init(key, inputs, outputs):
    first, second = jax.random.split(key)
    lecun = jax.nn.initializers.lecun_normal()
    w1, w2 = lecun(first, (inputs, WIDTH)), lecun(second, (WIDTH, outputs))
    return {"w1": w1, "b1": jnp.zeros(WIDTH), "w2": w2, "b2": jnp.zeros(outputs)}


def _generate(params, latent):
    return jnp.tanh(_net(params, latent))


def _generator_loss(generator, latent, discriminator):
    logit = _net(discriminator, _generate(generator, latent))[:, 0]
    return jax.nn.softplus(-logit)


def _discriminator_loss(discriminator, batch, generator):
    real, latent = batch
    fake = _net(discriminator, _generate(generator, latent))[:, 0]
    return jax.nn.softplus(-_net(discriminator, real)[:, 0]) + jax.nn.softplus(fake)


def theirs(tx, carry, batch):
    g, g_state, (d, d_state) = carry

    d_loss = lambda d: _discriminator_loss(d, batch, g).mean()  # noqa: E731
    loss, grads = jax.value_and_grad(d_loss)(d)
    updates, d_state = tx.update(grads, d_state)
    d = optax.apply_updates(d, updates)

    g_loss = lambda g: _generator_loss(g, batch[1], d).mean()  # noqa: E731
    loss, grads = jax.value_and_grad(g_loss)(g)
    updates, g_state = tx.update(grads, g_state)
    return (optax.apply_updates(g, updates), g_state, (d, d_state)), loss


def ours(tx, carry, batch):
    g, g_state, (d, d_state) = carry

    d_loss = lambda d: _discriminator_loss(d, batch, g).mean()  # noqa: E731
    loss, grads = jax.value_and_grad(d_loss)(d)
    losses = lambda d: _discriminator_loss(d, batch, g)  # noqa: E731
    updates, d_state = tx.update(grads, d_state, d, value=loss, value_fn=losses)
    d = optax.apply_updates(d, updates)

    g_loss = lambda g: _generator_loss(g, batch[1], d).mean()  # noqa: E731
    loss, grads = jax.value_and_grad(g_loss)(g)
    losses = lambda g: _generator_loss(g, batch[1], d)  # noqa: E731
    updates, g_state = tx.update(grads, g_state, g, value=loss, value_fn=losses)
    return (optax.apply_updates(g, updates), g_state, (d, d_state)), loss


def _start(tx, key):
    first, second = jax.random.split(key)
    g, d = _init(first, LATENT, 64), _init(second, 64, 1)
    return g, tx.init(g), (d, tx.init(d))


def _distances(a, b):
    return jnp.sqrt(jnp.sum((a[:, None] - b[None]) ** 2, axis=-1) + 1e-12)


def program() -> Program:
    (images, _), (test, _) = digits()
    draw = sample(2 * images - 1, 64)
    latent = jax.random.normal(jax.random.key(0), (300, LATENT))

    def judge(params, carry):
        fake, real, n = _generate(params, latent), 2 * test - 1, len(test)
        of_fakes = _distances(fake, fake).sum() / (300 * 299)
        of_real = _distances(real, real).sum() / (n * (n - 1))
        return 2 * _distances(fake, real).mean() - of_fakes - of_real

    def batch(key):
        rows, noise = jax.random.split(key)
        return draw(rows), jax.random.normal(noise, (64, LATENT))

    return Program(
        project="Haiku",
        url="https://github.com/google-deepmind/dm-haiku/blob/main/examples/mnist_gan.ipynb",
        setting="adam(1e-4, b1=0.5, b2=0.9), twice",
        optimizer=lambda steps: optax.adam(1e-4, b1=0.5, b2=0.9),
        published_steps=20_001,
        steps=2_000,
        quick=10,
        start=_start,
        batch=batch,
        theirs=theirs,
        ours=ours,
        judge=judge,
        judged="energy distance to test images",
    )
