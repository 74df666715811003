"""The most memory of an accelerator that a training takes: each in a process of its own.

A device tells the peak of a process since its start, and never forgets it: of two trainings in one
process the smaller cannot be told.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import jax

from . import cases
from .measure import compile_loop
from .plan import Part


def of_part(part: Part, contender: str) -> int | None:
    """Bytes at the peak of a training, as the device tells them; None where it does not.

    Raises:
      RuntimeError: if the training failed there, with the last line of what it said.
    """
    if jax.default_backend() == "cpu":  # whose memory nobody counts
        return None
    command = [sys.executable, "-m", __name__, part.case, str(part.width), str(part.batch_size)]
    # What this process holds of the device is out of reach; the other takes only what it needs.
    quiet = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    done = subprocess.run([*command, contender], env=quiet, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise RuntimeError(f"the peak of {contender} was not measured: {said[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def main(name: str, width: str, batch_size: str, contender: str) -> None:
    """Train, and print the peak as JSON."""
    case = cases.CASES[name]() if width == "None" else cases.mlp(int(width))
    compile_loop(case, int(batch_size), contender).seconds()
    told = jax.local_devices()[0].memory_stats() or {}
    print(json.dumps(told.get("peak_bytes_in_use")))


if __name__ == "__main__":
    main(*sys.argv[1:])
