"""Stochastic differential equations: a solver of fixed steps."""

from .euler_maruyama import euler_maruyama

__all__ = ["euler_maruyama"]
