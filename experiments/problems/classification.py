"""Classification of images: cross-entropy of a Flax module's logits."""

from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..datasets import Dataset, Images
from .problem import Problem, PyTree

_cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def classification(
    name: str,
    dataset: Dataset,
    module: nn.Module,
    *,
    batch_size: int,
    epochs: int,
    evaluations: int = 20,
    label_noise: float = 0.0,
) -> Problem:
    """Make the problem of training `module` on `dataset`.

    Args:
      name: of the problem.
      dataset: images and labels, and how to standardize pixels.
      module: maps images (n, height, width, channels) to logits (n, classes).
      batch_size: default batch size.
      epochs: default number of epochs.
      evaluations: how often to evaluate during a run, at least.
      label_noise: part of the training labels that are replaced by random ones.
    """
    offset, scale = jnp.asarray(dataset.offset), jnp.asarray(dataset.scale)

    def logits(params: PyTree, batch: PyTree) -> jax.Array:
        return cast(jax.Array, module.apply(params, (batch["image"] - offset) / scale))

    def losses(params: PyTree, batch: PyTree, key: jax.Array | None = None) -> jax.Array:
        del key
        return _cross_entropy(logits(params, batch), batch["label"])

    def loss(params: PyTree, example: PyTree, key: jax.Array | None = None) -> jax.Array:
        return losses(params, jax.tree.map(lambda leaf: leaf[None], example), key)[0]

    def init(key: jax.Array) -> PyTree:
        return module.init(key, jnp.zeros((1, *dataset.train.image.shape[1:])))

    def measure(params: PyTree, batch: PyTree) -> dict[str, jax.Array]:
        outputs, labels = logits(params, batch), batch["label"]
        correct = jnp.argmax(outputs, axis=-1) == labels
        return {"loss": _cross_entropy(outputs, labels), "accuracy": correct}

    data = _on_device(dataset.train)
    if label_noise:
        data["label"] = jnp.asarray(_corrupted(dataset.train.label, label_noise), jnp.int32)
    return Problem(
        name=name,
        init=init,
        loss=loss,
        losses=losses,
        measure=measure,
        data=data,
        test=_on_device(dataset.test),
        batch_size=batch_size,
        epochs=epochs,
        evaluations=evaluations,
    )


def _on_device(images: Images) -> dict[str, jax.Array]:
    return {"image": jnp.asarray(images.image), "label": jnp.asarray(images.label, jnp.int32)}


def _corrupted(label: np.ndarray, part: float) -> np.ndarray:
    """Labels of which a part, always the same one, is drawn anew from all classes."""
    rng = np.random.default_rng(2020)
    chosen = rng.random(label.shape) < part
    return np.where(chosen, rng.integers(0, label.max() + 1, label.shape), label)
