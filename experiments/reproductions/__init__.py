"""Reproductions of results, each with claims that are checked, by name."""

from .claims import Claim, Reproduction, Table
from .registry import REPRODUCTIONS, Entry

__all__ = ["REPRODUCTIONS", "Claim", "Entry", "Reproduction", "Table"]
