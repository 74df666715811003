"""What is timed: models on random data, for what a step costs does not depend on the values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ..models import CNN, MLP, Transformer
from ..ode import integrate

PyTree = Any
CLASSES = 10
_TOKENS, _LENGTH = 64, 32


@dataclass(frozen=True)
class Case:
    """A model and its loss.

    Attributes:
      name: in tables.
      init: `key -> params`.
      losses: `(params, batch) -> (n,)`.
      batch: `n -> batch`, random.
    """

    name: str
    init: Callable[[jax.Array], PyTree]
    losses: Callable[[PyTree, PyTree], jax.Array]
    batch: Callable[[int], PyTree]

    def parameters(self) -> int:
        """Their number."""
        shapes = jax.eval_shape(self.init, jax.random.key(0))
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def mlp(width: int = 256) -> Case:
    """784 inputs, two hidden layers: 270,000 parameters, or as the width says."""
    return _classifier("mlp", MLP(widths=(width, width), classes=CLASSES), (28, 28))


def cnn() -> Case:
    """Three convolutions with group normalization on images of 32 × 32 pixels."""
    return _classifier("cnn", CNN(widths=(16, 32, 64), classes=CLASSES), (32, 32, 3))


def transformer() -> Case:
    """One block of width 64 on 32 tokens."""
    module = Transformer(tokens=_TOKENS, width=64, heads=2)

    def losses(params: PyTree, batch: PyTree) -> jax.Array:
        logits = cast(jax.Array, module.apply(params, batch[:, :-1]))
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, batch[:, 1:])
        return jnp.mean(entropy, axis=1)

    return Case(
        "transformer",
        lambda key: module.init(key, jnp.zeros((1, _LENGTH), jnp.int32)),
        losses,
        lambda n: jax.random.randint(jax.random.key(1), (n, _LENGTH + 1), 0, _TOKENS),
    )


def neural_ode() -> Case:
    """Digits as the state of an ODE in 64 dimensions, 8 Runge–Kutta steps; 17,000 parameters."""
    field, head = nn.Sequential([nn.Dense(128), nn.tanh, nn.Dense(64)]), nn.Dense(CLASSES)

    def init(key: jax.Array) -> PyTree:
        inner, outer = jax.random.split(key)
        state = jnp.zeros((1, 64))
        return {"field": field.init(inner, state), "head": head.init(outer, state)}

    def losses(params: PyTree, batch: PyTree) -> jax.Array:
        start = batch["image"].reshape(-1, 64)
        end = integrate(lambda t, y: field.apply(params["field"], y), start, 0.0, 1.0, steps=8)
        logits = cast(jax.Array, head.apply(params["head"], end))
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])

    return Case("neural ODE", init, losses, _images((8, 8)))


def _classifier(name: str, module: nn.Module, shape: tuple[int, ...]) -> Case:
    def losses(params: PyTree, batch: PyTree) -> jax.Array:
        logits = cast(jax.Array, module.apply(params, batch["image"]))
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])

    return Case(name, lambda key: module.init(key, jnp.zeros((1, *shape))), losses, _images(shape))


def _images(shape: tuple[int, ...]) -> Callable[[int], PyTree]:
    def batch(n: int) -> PyTree:
        image, label = jax.random.split(jax.random.key(1))
        return {
            "image": jax.random.normal(image, (n, *shape)),
            "label": jax.random.randint(label, (n,), 0, CLASSES),
        }

    return batch


CASES = {"mlp": mlp, "cnn": cnn, "transformer": transformer, "neural ODE": neural_ode}
