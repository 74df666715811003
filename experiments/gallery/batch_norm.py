"""A convolutional network with BatchNorm, deployed at the average with its own statistics.

Modeled on Flax's example `imagenet`: SGD with Nesterov momentum 0.9, rate 0.1 × batch size / 256
after a warmup of 5 of 100 epochs, then a cosine, batches of 128. Here: digits, two convolutions,
10 epochs of which half a one is warmup, and no weight decay. The statistics of a batch couple its
examples, so that `adameka` measures variances that are those of independent examples only about.
What is judged has statistics made afresh at the parameters that are judged, of all training images.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from .program import Program, digits, sample


class CNN(nn.Module):
    @nn.compact
    def __call__(self, x, train, momentum=0.9):
        x = x.reshape(-1, 8, 8, 1)
        for features in (16, 32):
            x = nn.Conv(features, (3, 3), strides=2, use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=momentum)(x))
        return nn.Dense(10)(x.reshape(len(x), -1))


def _apply(params, stats, x, train, **options):
    """Logits, and the running statistics after this batch."""
    variables = {"params": params, "batch_stats": stats}
    logits, new = CNN().apply(variables, x, train, **options, mutable=["batch_stats"])
    return logits, new["batch_stats"]


_entropy = optax.softmax_cross_entropy_with_integer_labels


def theirs(tx, carry, batch):
    params, state, stats = carry
    x, y = batch

    def loss_fn(params):
        logits, new = _apply(params, stats, x, train=True)
        return _entropy(logits, y).mean(), new

    (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
    updates, state = tx.update(grads, state, params)
    return (optax.apply_updates(params, updates), state, stats), loss


def ours(tx, carry, batch):
    params, state, stats = carry
    x, y = batch

    def loss_fn(params):
        logits, new = _apply(params, stats, x, train=True)
        return _entropy(logits, y).mean(), new

    def value_fn(params):
        return _entropy(_apply(params, stats, x, train=True)[0], y)

    (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
    updates, state = tx.update(grads, state, params, value=loss, value_fn=value_fn)
    return (optax.apply_updates(params, updates), state, stats), loss


def _start(tx, key):
    variables = CNN().init(key, jnp.zeros((1, 64)), train=False)
    return variables["params"], tx.init(variables["params"]), variables["batch_stats"]


def _nesterov(steps):
    rate = optax.warmup_cosine_decay_schedule(0.0, 0.1 * 128 / 256, max(steps // 20, 1), steps)
    return optax.sgd(rate, momentum=0.9, nesterov=True)


def program() -> Program:
    (images, labels), (test, test_labels) = digits()

    def judge(params, carry):
        _, stats = _apply(params, carry[2], images, train=True, momentum=0.0)
        return _entropy(_apply(params, stats, test, train=False)[0], test_labels).mean()

    return Program(
        project="Flax",
        url="https://github.com/google/flax/tree/main/examples/imagenet",
        setting="sgd(0.05, nesterov), warmup, cosine",
        optimizer=_nesterov,
        published_steps=7_400,
        steps=120,
        quick=10,
        start=_start,
        batch=sample((images, labels), 128),
        theirs=theirs,
        ours=ours,
        judge=judge,
        judged="test entropy, nats",
    )
