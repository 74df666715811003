"""A variational autoencoder in Flax NNX.

Modeled on Flax's `05_vae.py`: adam(1e-3), 4,000 steps, batches of 64 binary images of MNIST, 256
hidden units, 32 latent ones, 0.1 times the divergence. Here: digits of 8 by 8 pixels, 64 hidden
units, 8 latent ones.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from ...optimizers import nnx_value_fn
from .program import Program, digits, sample

HIDDEN, LATENT = 64, 8


class VAE(nnx.Module):
    def __init__(self, rngs):
        self.encoder = nnx.Linear(64, HIDDEN, rngs=rngs)
        self.mean = nnx.Linear(HIDDEN, LATENT, rngs=rngs)
        self.log_std = nnx.Linear(HIDDEN, LATENT, rngs=rngs)
        self.decoder = nnx.Linear(LATENT, HIDDEN, rngs=rngs)
        self.logits = nnx.Linear(HIDDEN, 64, rngs=rngs)
        self.rngs = rngs.fork()

    def __call__(self, x):
        hidden = jax.nn.relu(self.encoder(x))
        mean, log_std = self.mean(hidden), self.log_std(hidden)
        z = mean + jnp.exp(log_std) * jax.random.normal(self.rngs.noise(), mean.shape)
        divergence = 0.5 * jnp.mean(jnp.exp(2 * log_std) + mean**2 - 1 - 2 * log_std, axis=1)
        return self.logits(jax.nn.relu(self.decoder(z))), divergence


def theirs(tx, carry, x):
    model, optimizer = carry

    def loss_fn(model, x):
        logits, divergence = model(x)
        entropy = optax.sigmoid_binary_cross_entropy(logits, x)
        return entropy.mean() + 0.1 * divergence.mean()

    loss, grads = nnx.value_and_grad(loss_fn)(model, x)
    optimizer.update(model, grads)
    return (model, optimizer), loss


def ours(tx, carry, x):
    model, optimizer = carry

    def loss_fn(model, x):
        logits, divergence = model(x)
        entropy = optax.sigmoid_binary_cross_entropy(logits, x)
        return entropy.mean(axis=1) + 0.1 * divergence

    value_fn = nnx_value_fn(model, loss_fn, x)  # first: gradient and value_fn share their noise
    loss, grads = nnx.value_and_grad(lambda model, x: loss_fn(model, x).mean())(model, x)
    optimizer.update(model, grads, value=loss, value_fn=value_fn)
    return (model, optimizer), loss


def _start(tx, key):
    model = VAE(nnx.Rngs(key))
    return model, nnx.Optimizer(model, tx, wrt=nnx.Param)


def _parts(carry):
    model, optimizer = carry
    return nnx.as_pure(nnx.state(model, nnx.Param)), nnx.as_pure(optimizer.opt_state)


def program() -> Program:
    (images, _), (test, _) = digits()
    images, test = (jnp.asarray(x > 0.25, jnp.float32) for x in (images, test))

    def judge(params, carry):
        model = nnx.clone(carry[0])
        model.rngs = nnx.Rngs(0)  # the same noise for every optimizer
        nnx.update(model, params)
        logits, divergence = model(jnp.tile(test, (10, 1)))
        entropy = optax.sigmoid_binary_cross_entropy(logits, jnp.tile(test, (10, 1)))
        return entropy.mean() + 0.1 * divergence.mean()

    return Program(
        project="Flax NNX",
        url="https://github.com/google/flax/blob/main/examples/nnx_toy_examples/05_vae.py",
        setting="adam(1e-3)",
        optimizer=lambda steps: optax.adam(1e-3),
        published_steps=4_000,
        steps=2_000,
        quick=10,
        start=_start,
        batch=sample(images, 64),
        theirs=theirs,
        ours=ours,
        judge=judge,
        judged="test loss",
        parts=_parts,
    )
