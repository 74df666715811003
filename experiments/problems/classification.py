"""Classification of images: cross-entropy of a Flax module's logits."""

from collections.abc import Callable
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..datasets import Dataset, Images
from .problem import Problem, PyTree

TRAIN_SUBSET = 10_000  # examples that the reported training loss is averaged over, at most
CHUNK = 500  # examples evaluated at a time


def classification(
    name: str,
    dataset: Dataset,
    module: nn.Module,
    *,
    batch_size: int,
    epochs: int,
    evaluations: int = 20,
) -> Problem:
    """Make the problem of training `module` on `dataset`.

    Args:
      name: of the problem.
      dataset: images and labels, and how to standardize pixels.
      module: maps images (n, height, width, channels) to logits (n, classes).
      batch_size: default batch size.
      epochs: default number of epochs.
      evaluations: how often to evaluate during a run, at least.
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
    return Problem(
        name=name,
        init=init,
        loss=loss,
        losses=losses,
        evaluate=_evaluation(measure, data, _on_device(dataset.test)),
        data=data,
        batch_size=batch_size,
        epochs=epochs,
        evaluations=evaluations,
    )


_cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def _on_device(images: Images) -> dict[str, jax.Array]:
    return {"image": jnp.asarray(images.image), "label": jnp.asarray(images.label, jnp.int32)}


def _evaluation(
    measure: Callable[[PyTree, PyTree], dict[str, jax.Array]], train: PyTree, test: PyTree
) -> Callable[[PyTree], dict[str, float]]:
    """Averages over a fixed part of the training data and over all test data."""

    @jax.jit
    def averages(params: PyTree, data: PyTree) -> dict[str, jax.Array]:
        def one(example: PyTree) -> dict[str, jax.Array]:
            values = measure(params, jax.tree.map(lambda leaf: leaf[None], example))
            return {name: value[0] for name, value in values.items()}

        values = jax.lax.map(one, data, batch_size=CHUNK)
        return {name: jnp.mean(value, dtype=jnp.float32) for name, value in values.items()}

    count = jax.tree.leaves(train)[0].shape[0]
    # Prepared data are stored in shuffled order, and so are the digits: a prefix is a sample.
    subset = jax.tree.map(lambda leaf: leaf[: min(count, TRAIN_SUBSET)], train)

    def evaluate(params: PyTree) -> dict[str, float]:
        on_train, on_test = jax.device_get((averages(params, subset), averages(params, test)))
        return {
            "train_loss": float(np.asarray(on_train["loss"])),
            "test_loss": float(np.asarray(on_test["loss"])),
            "test_accuracy": float(np.asarray(on_test["accuracy"])),
        }

    return evaluate
