"""Differential equations and invertible maps: solvers, and derivatives along solutions."""

from .adaptive import Solution, integrate_adaptively, solve
from .divergence import divergence, hollow_divergence, hutchinson_divergence
from .euler_maruyama import euler_maruyama
from .gaussian_filter import Belief, filter_step, observe
from .residual import (
    contracted,
    estimated_log_determinant,
    invert,
    log_determinant,
    spectral_bound,
)
from .runge_kutta import Field, Integrate, integrate, trajectory
from .second_order import require_second_order
from .taylor import time_derivatives

__all__ = [
    "Belief",
    "Field",
    "Integrate",
    "Solution",
    "contracted",
    "divergence",
    "estimated_log_determinant",
    "euler_maruyama",
    "filter_step",
    "hollow_divergence",
    "hutchinson_divergence",
    "integrate",
    "integrate_adaptively",
    "invert",
    "log_determinant",
    "observe",
    "require_second_order",
    "solve",
    "spectral_bound",
    "time_derivatives",
    "trajectory",
]
