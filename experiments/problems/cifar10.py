"""CIFAR-10: color photographs of 32×32 pixels in ten classes, 50,000 to train, 10,000 to test."""

import flax.linen as nn

from .. import datasets
from ..models import CNN, MLP, LogisticRegression, ResNet
from .classification import classification
from .problem import Problem, Source


def _problem(name: str, source: Source, module: nn.Module) -> Problem:
    dataset = datasets.prepared("cifar10", source.data_dir, source.report)
    return classification(name, dataset, module, batch_size=128, epochs=5, evaluations=10)


def mlp(name: str, source: Source) -> Problem:
    return _problem(name, source, MLP((128, 128), 10))


def logistic(name: str, source: Source) -> Problem:
    return _problem(name, source, LogisticRegression(10))


def cnn(name: str, source: Source) -> Problem:
    return _problem(name, source, CNN((16, 32, 64), 10))


def small_cnn(name: str, source: Source) -> Problem:
    return _problem(name, source, CNN((8, 16, 32), 10))


def resnet(name: str, source: Source) -> Problem:
    return _problem(name, source, ResNet((16, 32, 64), 5, 10))


def small_resnet(name: str, source: Source) -> Problem:
    return _problem(name, source, ResNet((8, 16), 1, 10, stem_stride=2))
