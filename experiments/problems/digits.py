"""Handwritten digits of 8×8 pixels that come with scikit-learn: 1,438 to train, 359 to test."""

import flax.linen as nn

from .. import datasets
from ..models import CNN, MLP, LogisticRegression
from .classification import classification
from .problem import Problem, Source


def _problem(name: str, module: nn.Module) -> Problem:
    return classification(name, datasets.digits(), module, batch_size=64, epochs=30)


def mlp(name: str, source: Source) -> Problem:
    del source  # the data are built in
    return _problem(name, MLP((64, 64), 10))


def logistic(name: str, source: Source) -> Problem:
    del source
    return _problem(name, LogisticRegression(10))


def cnn(name: str, source: Source) -> Problem:
    del source
    return _problem(name, CNN((16, 32), 10))
