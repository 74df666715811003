"""Ordinary differential equations: solvers, and derivatives along their solutions."""

from .adaptive import Solution, integrate_adaptively, solve
from .divergence import divergence, hollow_divergence, hutchinson_divergence
from .field import Field, Integrate
from .runge_kutta import integrate, trajectory
from .second_order import require_second_order
from .taylor import time_derivatives

__all__ = [
    "Field",
    "Integrate",
    "Solution",
    "divergence",
    "hollow_divergence",
    "hutchinson_divergence",
    "integrate",
    "integrate_adaptively",
    "require_second_order",
    "solve",
    "time_derivatives",
    "trajectory",
]
