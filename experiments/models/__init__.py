"""Networks in Flax, whose examples do not meet: no statistics over the batch."""

from .autoencoder import Autoencoder
from .cnn import CNN
from .convolution import Convolution
from .logistic import LogisticRegression
from .mlp import MLP
from .transformer import Transformer
from .vector_field import VectorField

__all__ = [
    "CNN",
    "MLP",
    "Autoencoder",
    "Convolution",
    "LogisticRegression",
    "Transformer",
    "VectorField",
]
