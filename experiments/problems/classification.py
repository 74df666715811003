"""Classification of images: cross-entropy of a Flax module's logits."""

from functools import partial
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from .. import data
from ..models import CNN, MLP, ResNet
from ..problem import Problem, PyTree, Source
from .common import deterministic

_cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def classification(
    name: str,
    dataset: data.Dataset,
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
      label_noise: share of the training labels that are replaced by random ones.
    """
    offset, scale = jnp.asarray(dataset.offset), jnp.asarray(dataset.scale)

    def logits(params: PyTree, batch: PyTree) -> jax.Array:
        return cast(jax.Array, module.apply(params, (batch["image"] - offset) / scale))

    def measure(params: PyTree, batch: PyTree) -> dict[str, jax.Array]:
        outputs, labels = logits(params, batch), batch["label"]
        correct = jnp.argmax(outputs, axis=-1) == labels
        return {"loss": _cross_entropy(outputs, labels), "accuracy": correct}

    loss, losses = deterministic(lambda params, batch: measure(params, batch)["loss"])
    train = dataset.train
    if label_noise:
        train = data.Images(train.image, data.with_label_noise(train.label, label_noise))
    return Problem(
        name=name,
        init=lambda key: module.init(key, jnp.zeros((1, *train.image.shape[1:]))),
        loss=loss,
        losses=losses,
        measure=measure,
        data=images_on_device(train),
        test=images_on_device(dataset.test),
        batch_size=batch_size,
        epochs=epochs,
        evaluations=evaluations,
    )


def images_on_device(images: data.Images) -> dict[str, jax.Array]:
    return {"image": jnp.asarray(images.image), "label": jnp.asarray(images.label, jnp.int32)}


def _digits(name: str, source: Source, module: nn.Module) -> Problem:
    del source  # the data are built in
    return classification(name, data.digits(), module, batch_size=64, epochs=30)


def _prepared(
    name: str,
    source: Source,
    dataset: str,
    module: nn.Module,
    evaluations: int = 20,
    **options: float,
) -> Problem:
    images = data.prepared(dataset, source.data_dir, source.report)
    return classification(
        name, images, module, batch_size=128, epochs=5, evaluations=evaluations, **options
    )


_mnist = partial(_prepared, dataset="mnist")
_cifar10 = partial(_prepared, dataset="cifar10", evaluations=10)

digits_mlp = partial(_digits, module=MLP((64, 64), 10))
digits_logistic = partial(_digits, module=MLP((), 10))
digits_cnn = partial(_digits, module=CNN((16, 32), 10))
mnist_mlp = partial(_mnist, module=MLP((128, 128), 10))
mnist_logistic = partial(_mnist, module=MLP((), 10))
mnist_cnn = partial(_mnist, module=CNN((16, 32), 10))
mnist_noisy_mlp = partial(mnist_mlp, label_noise=0.2)
mnist_noisy_logistic = partial(mnist_logistic, label_noise=0.2)
cifar10_mlp = partial(_cifar10, module=MLP((128, 128), 10))
cifar10_logistic = partial(_cifar10, module=MLP((), 10))
cifar10_cnn = partial(_cifar10, module=CNN((16, 32, 64), 10))
cifar10_small_cnn = partial(_cifar10, module=CNN((8, 16, 32), 10))
cifar10_resnet = partial(_cifar10, module=ResNet((16, 32, 64), 5, 10))
cifar10_small_resnet = partial(_cifar10, module=ResNet((8, 16), 1, 10, stem_stride=2))
