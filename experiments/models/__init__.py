"""Networks in Flax, whose examples do not meet: no statistics over the batch."""

from .autoencoder import Autoencoder
from .cnn import CNN
from .convolution import Convolution
from .hollow_field import HollowField
from .logistic import LogisticRegression
from .mlp import MLP
from .resnet import ResNet
from .transformer import Transformer
from .vector_field import VectorField

__all__ = [
    "CNN",
    "MLP",
    "Autoencoder",
    "Convolution",
    "HollowField",
    "LogisticRegression",
    "ResNet",
    "Transformer",
    "VectorField",
]
