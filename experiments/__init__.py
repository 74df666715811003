"""Test problems, comparisons, reproductions, recordings, plots and the command line."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .problem import Problem, Source, batched
    from .recorder import Recorder

__all__ = ["Problem", "Recorder", "Source", "batched"]


def __getattr__(name: str) -> Any:
    """Import on demand: the command line checks its input before it imports anything heavy."""
    if name == "Recorder":
        from .recorder import Recorder

        return Recorder
    if name in __all__:
        from . import problem

        return getattr(problem, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
