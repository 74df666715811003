"""Classifiers in Flax: images of shape (n, height, width, channels) to logits (n, classes)."""

from .cnn import CNN
from .logistic import LogisticRegression
from .mlp import MLP

__all__ = ["CNN", "MLP", "LogisticRegression"]
