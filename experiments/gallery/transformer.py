"""A transformer that tells the next character.

Modeled on Optax's example `nanolm.ipynb`: adamw(2e-3), 50,000 steps, batches of 128 pieces of 64
characters of Shakespeare, 6 blocks of width 256. Here: Python's documentation, pieces of 32
characters, 2 blocks of width 64, no dropout.
"""

from typing import cast

import jax
import jax.numpy as jnp
import optax

from ..models import Transformer
from ..problem import Source
from ..problems.text import ALPHABET, next_character
from .program import Program, begin, sample

MODEL = Transformer(tokens=len(ALPHABET) + 1, width=64, heads=4, blocks=2)


def _entropy(params, text):
    logits = cast(jax.Array, MODEL.apply(params, text[:, :-1]))
    return optax.softmax_cross_entropy_with_integer_labels(logits, text[:, 1:])


def theirs(tx, carry, text):
    params, state = carry

    def loss_fn(params):
        return _entropy(params, text).mean()

    loss, grads = jax.value_and_grad(loss_fn)(params)
    updates, state = tx.update(grads, state, params)
    return (optax.apply_updates(params, updates), state), loss


def ours(tx, carry, text):
    params, state = carry

    def loss_fn(params):
        return _entropy(params, text).mean(axis=1)

    loss, grads = jax.value_and_grad(lambda p: loss_fn(p).mean())(params)
    updates, state = tx.update(grads, state, params, value=loss, value_fn=loss_fn)
    return (optax.apply_updates(params, updates), state), loss


def program() -> Program:
    text = next_character("transformer", Source(), MODEL)
    return Program(
        project="Optax",
        url="https://github.com/google-deepmind/optax/blob/main/examples/nanolm.ipynb",
        setting="adamw(2e-3)",
        optimizer=lambda steps: optax.adamw(2e-3),
        published_steps=50_000,
        steps=400,
        quick=10,
        start=begin(text.init),
        batch=sample(text.data["text"], 32),
        theirs=theirs,
        ours=ours,
        judge=lambda params, carry: jnp.mean(_entropy(params, text.test["text"])),
        judged="validation entropy, nats",
    )
