"""Problems and optimizers by name; importing it imports no jax."""

from .optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    Optimizer,
    Setting,
    find_optimizer,
    group,
    parse,
    parse_all,
)
from .problems import PROBLEMS, ProblemEntry, adopt, find, load

__all__ = [
    "OPTIMIZERS",
    "PROBLEMS",
    "SCHEDULES",
    "Optimizer",
    "ProblemEntry",
    "Setting",
    "adopt",
    "find",
    "find_optimizer",
    "group",
    "load",
    "parse",
    "parse_all",
]
