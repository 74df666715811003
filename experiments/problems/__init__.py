"""Test problems by name; the registry needs no jax, loading a problem imports it."""

from .problem import Problem, Source
from .registry import PROBLEMS, Entry, find, load

__all__ = ["PROBLEMS", "Entry", "Problem", "Source", "find", "load"]
