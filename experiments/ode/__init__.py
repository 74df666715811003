"""Ordinary differential equations: solvers, and derivatives along their solutions."""

from .adaptive import Solution, integrate_adaptively, solve
from .divergence import divergence, hutchinson_divergence
from .field import Field, Integrate
from .runge_kutta import integrate, trajectory
from .taylor import time_derivatives

__all__ = [
    "Field",
    "Integrate",
    "Solution",
    "divergence",
    "hutchinson_divergence",
    "integrate",
    "integrate_adaptively",
    "solve",
    "time_derivatives",
    "trajectory",
]
