"""Test problems, comparisons, reproductions, recordings, plots and the command line."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .recorder import Recorder

__all__ = ["Recorder"]


def __getattr__(name: str) -> Any:
    """Import on demand: the command line checks its input before it imports anything heavy."""
    if name == "Recorder":
        from .recorder import Recorder

        return Recorder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
