"""Networks in Flax that keep the examples of a batch apart: no statistics over the batch."""

from .convolutional import CNN, Convolution, ResNet
from .mlp import MLP, SmoothMLP, lipswish
from .recurrent import GRU, Recurrent
from .transformer import Transformer
from .vector_field import HollowField, VectorField

__all__ = [
    "CNN",
    "GRU",
    "MLP",
    "Convolution",
    "HollowField",
    "Recurrent",
    "ResNet",
    "SmoothMLP",
    "Transformer",
    "VectorField",
    "lipswish",
]
