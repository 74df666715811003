"""Invertible residual maps x ↦ x + g(x), where g contracts: bounds, determinants, inverses."""

from .inverse import invert
from .log_determinant import estimated_log_determinant, log_determinant
from .spectral import contracted, spectral_bound

__all__ = [
    "contracted",
    "estimated_log_determinant",
    "invert",
    "log_determinant",
    "spectral_bound",
]
