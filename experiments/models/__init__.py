"""Networks in Flax, whose examples do not meet: no statistics over the batch."""

from .autoencoder import Autoencoder
from .cnn import CNN
from .convolution import Convolution
from .coupling import Coupling
from .lipswish import LipSwish
from .logistic import LogisticRegression
from .mlp import MLP
from .recurrent import Recurrent
from .tanh_mlp import TanhMLP
from .transformer import Transformer
from .vector_field import VectorField

__all__ = [
    "CNN",
    "MLP",
    "Autoencoder",
    "Convolution",
    "Coupling",
    "LipSwish",
    "LogisticRegression",
    "Recurrent",
    "TanhMLP",
    "Transformer",
    "VectorField",
]
