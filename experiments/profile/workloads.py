"""Classifiers on random data: what a step costs does not depend on the values."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ..models import CNN, MLP, Transformer
from ..solvers import integrate

PyTree = Any
_CLASSES, _TOKENS = 10, 64
_FIELD = nn.Sequential([nn.Dense(128), nn.tanh, nn.Dense(64)])


class Workload(NamedTuple):
    """A module from inputs to logits, and the shape of an input."""

    module: nn.Module
    shape: tuple[int, ...]

    def init(self, key: jax.Array) -> PyTree:
        """Parameters."""
        return self.module.init(key, self.batch(1)["x"])

    def losses(self, params: PyTree, batch: PyTree) -> jax.Array:
        """The loss of every example, shape (n,); of a sequence, the mean over its tokens."""
        logits = cast(jax.Array, self.module.apply(params, batch["x"]))
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])
        return entropy if entropy.ndim == 1 else jnp.mean(entropy, axis=1)

    def loss(self, params: PyTree, example: PyTree) -> jax.Array:
        """The loss of a single example."""
        return self.losses(params, jax.tree.map(lambda leaf: leaf[None], example))[0]

    def batch(self, n: int) -> PyTree:
        """So many random examples, always the same."""
        for_x, for_y = jax.random.split(jax.random.key(1))
        if isinstance(self.module, Transformer):
            x, y = jax.random.randint(for_x, (2, n, *self.shape), 0, _TOKENS)
            return {"x": x, "y": y}
        x = jax.random.normal(for_x, (n, *self.shape))
        return {"x": x, "y": jax.random.randint(for_y, (n,), 0, _CLASSES)}

    def parameters(self) -> int:
        """Number of the parameters."""
        shapes = jax.eval_shape(self.init, jax.random.key(0))
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))


class _NeuralODE(nn.Module):
    """Digits as the state of an ODE in 64 dimensions, 8 Runge–Kutta steps; 17,000 parameters."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        params = self.param("field", _FIELD.init, x)
        end = integrate(lambda t, y: _FIELD.apply(params, y), x, 0.0, 1.0, steps=8)
        return nn.Dense(_CLASSES)(end)


def load(model: str, width: int | None = None) -> Workload:
    """A model by name; `width` is that of the two hidden layers of the MLP.

    Example:
      >>> load("mlp").parameters(), load("mlp", 12).parameters()
      (269322, 9706)
    """
    hidden = (width or 256,) * 2
    return {
        "mlp": Workload(MLP(widths=hidden, classes=_CLASSES), (28, 28)),
        "cnn": Workload(CNN(widths=(16, 32, 64), classes=_CLASSES), (32, 32, 3)),
        "transformer": Workload(Transformer(tokens=_TOKENS, width=64, heads=2), (32,)),
        "neural ODE": Workload(_NeuralODE(), (64,)),
    }[model]
