"""Problems in files of the user's own."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

from ..errors import UsageError
from .problem import Problem, Source

FACTORY = "problem"  # name of the function that builds it


def build(file: Path, name: str, source: Source) -> Problem:
    """Run the file and have its function `problem(name, source)` make the problem.

    Raises:
      UsageError: if there is no such file or function, or it returns something else.
    """
    factory = _factory(file)
    try:
        inspect.signature(factory).bind(name, source)
    except TypeError as error:
        raise UsageError(
            f"expected {FACTORY} in {file} to take two arguments, name and source, got "
            f"{FACTORY}{inspect.signature(factory)}. Write def {FACTORY}(name, source)."
        ) from error
    made = factory(name, source)
    if not isinstance(made, Problem):
        raise UsageError(
            f"expected {FACTORY}(name, source) in {file} to return a "
            f"mekax.experiments.problems.Problem, got {type(made).__name__}."
        )
    return made


def _factory(file: Path) -> Callable[[str, Source], Problem]:
    if not file.is_file():
        raise UsageError(f"expected a Python file with a problem, but there is no {file}.")
    spec = importlib.util.spec_from_file_location(f"mekax_problem_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their own module
    spec.loader.exec_module(module)
    factory = getattr(module, FACTORY, None)
    if not callable(factory):
        raise UsageError(
            f"expected a function {FACTORY}(name, source) in {file}, found none. "
            "See docs/problems.md for one."
        )
    return cast(Callable[[str, Source], Problem], factory)
