"""Computing something in a process of its own, whose environment is set before JAX starts."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def in_new_process(function: Callable[..., Any], *args: Any, environment: Mapping[str, str]) -> Any:
    """Call a function of a module in a process of its own; exceptions come back as well.

    Example:
      >>> import os
      >>> in_new_process(os.getenv, "COLOR", environment={"COLOR": "red"})
      'red'
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, _set_environment, (dict(environment),)) as pool:
        return pool.submit(function, *args).result()


def _set_environment(environment: dict[str, str]) -> None:
    os.environ.update(environment)
