"""Low-rank fine-tuning from a trained start.

Modeled on Lorax's example `huggingface_gpt2.py`: adamw(1e-4, weight_decay=1e-4), 100 steps on one
batch of random tokens, rank 32, frozen weights of GPT-2. Here: a perceptron trained on digits is
tuned, at rank 4 and with all biases, to the same digits upside down; 300 steps, batches of 32.
"""

import jax
import jax.numpy as jnp
import optax

from .program import Program, begin, digits, sample

WIDTHS, RANK = (64, 128, 128, 10), 4


def _logits(frozen, tuned, x):
    for place, (weight, layer) in enumerate(zip(frozen, tuned, strict=True)):
        x = x @ weight + (x @ layer["a"]) @ layer["b"] + layer["bias"]
        x = x if place == len(frozen) - 1 else jax.nn.relu(x)
    return x


def theirs(tx, carry, batch):
    tuned, state = carry
    frozen, x, y = batch

    def loss_fn(tuned):
        logits = _logits(frozen, tuned, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    loss, grads = jax.value_and_grad(loss_fn)(tuned)
    updates, state = tx.update(grads, state, params=tuned)
    return (optax.apply_updates(tuned, updates), state), loss


def ours(tx, carry, batch):
    tuned, state = carry
    frozen, x, y = batch

    def loss_fn(tuned):
        logits = _logits(frozen, tuned, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y)

    loss, grads = jax.value_and_grad(lambda tuned: loss_fn(tuned).mean())(tuned)
    updates, state = tx.update(grads, state, params=tuned, value=loss, value_fn=loss_fn)
    return (optax.apply_updates(tuned, updates), state), loss


def _layers(key):
    """Weights, and what is tuned beside them: b is 0, so that the start is the trained network."""
    frozen, tuned = [], []
    for of_layer, m, n in zip(jax.random.split(key, 3), WIDTHS[:-1], WIDTHS[1:], strict=True):
        first, second = jax.random.split(of_layer)
        frozen.append(jax.nn.initializers.he_normal()(first, (m, n)))
        a = jax.random.normal(second, (m, RANK)) / jnp.sqrt(m)
        tuned.append({"a": a, "b": jnp.zeros((RANK, n)), "bias": jnp.zeros(n)})
    return frozen, tuned


@jax.jit
def _trained(key, x, y):
    """Weights and biases after 300 steps of Adam on all rows."""
    frozen, tuned = _layers(key)
    params, tx = (frozen, [layer["bias"] for layer in tuned]), optax.adam(3e-3)

    def loss(params):
        layers = [{**layer, "bias": b} for layer, b in zip(tuned, params[1], strict=True)]
        logits = _logits(params[0], layers, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    def step(_, carry):
        updates, state = tx.update(jax.grad(loss)(carry[0]), carry[1])
        return optax.apply_updates(carry[0], updates), state

    return jax.lax.fori_loop(0, 300, step, (params, tx.init(params)))[0]


def program() -> Program:
    (images, labels), (test, test_labels) = digits()
    frozen, biases = _trained(jax.random.key(0), images, labels)
    images, test = images[:, ::-1], test[:, ::-1]  # upside down
    draw = sample((images, labels), 32)

    def init(key):
        layers = zip(_layers(key)[1], biases, strict=True)
        return [{**layer, "bias": bias} for layer, bias in layers]

    def judge(params, carry):
        logits = _logits(frozen, params, test)
        return optax.softmax_cross_entropy_with_integer_labels(logits, test_labels).mean()

    return Program(
        project="Lorax",
        url="https://github.com/davisyoshida/lorax/blob/master/examples/huggingface_gpt2.py",
        setting="adamw(1e-4)",
        optimizer=lambda steps: optax.adamw(1e-4, weight_decay=1e-4),
        published_steps=100,
        steps=300,
        quick=10,
        start=begin(init),
        batch=lambda key: (frozen, *draw(key)),
        theirs=theirs,
        ours=ours,
        judge=judge,
        judged="test entropy, nats",
    )
