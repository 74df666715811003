"""Networks in Flax, whose examples do not meet: no statistics over the batch."""

from .autoencoder import Autoencoder
from .cnn import CNN
from .convolution import Convolution
from .logistic import LogisticRegression
from .mlp import MLP
from .resnet import ResNet
from .transformer import Transformer

__all__ = [
    "CNN",
    "MLP",
    "Autoencoder",
    "Convolution",
    "LogisticRegression",
    "ResNet",
    "Transformer",
]
