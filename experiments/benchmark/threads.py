"""How many threads a process computes with."""

import os
import sys


def use_one() -> None:
    """Compute with one thread: processes share the cores, and no result depends on how many do.

    Must come before jax is imported; does nothing after.
    """
    if "jax" not in sys.modules:
        os.environ["NPROC"] = "1"  # XLA's own name for the size of its pool
