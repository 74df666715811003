"""MNIST: handwritten digits of 28×28 pixels, 60,000 to train, 10,000 to test."""

import flax.linen as nn

from .. import datasets
from ..models import CNN, MLP, Autoencoder, LogisticRegression
from .autoencoder import autoencoder as reconstruction
from .classification import classification
from .problem import Problem, Source

LABEL_NOISE = 0.2


def _problem(name: str, source: Source, module: nn.Module, label_noise: float = 0.0) -> Problem:
    dataset = datasets.prepared("mnist", source.data_dir, source.report)
    return classification(name, dataset, module, batch_size=128, epochs=5, label_noise=label_noise)


def mlp(name: str, source: Source) -> Problem:
    return _problem(name, source, MLP((128, 128), 10))


def logistic(name: str, source: Source) -> Problem:
    return _problem(name, source, LogisticRegression(10))


def cnn(name: str, source: Source) -> Problem:
    return _problem(name, source, CNN((16, 32), 10))


def noisy_mlp(name: str, source: Source) -> Problem:
    return _problem(name, source, MLP((128, 128), 10), LABEL_NOISE)


def noisy_logistic(name: str, source: Source) -> Problem:
    return _problem(name, source, LogisticRegression(10), LABEL_NOISE)


def autoencoder(name: str, source: Source) -> Problem:
    dataset = datasets.prepared("mnist", source.data_dir, source.report)
    return reconstruction(name, dataset, Autoencoder((64, 16, 64)), batch_size=128, epochs=5)
