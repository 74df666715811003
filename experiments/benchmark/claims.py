"""Files that say who is at a job.

They save work and nothing depends on them, because every file of results is written in one step.
"""

import os
import platform
import time
from pathlib import Path

FOREIGN = 900.0  # seconds without a sign of life after which another machine's claim is void


def take(claim: Path) -> bool:
    """Whether a job is now this process's to do."""
    claim.parent.mkdir(parents=True, exist_ok=True)
    name = f"{platform.node()} {os.getpid()}"
    if claim.exists() and not _is_alive(claim):
        claim.unlink(missing_ok=True)
    try:
        with claim.open("x", encoding="utf-8") as file:
            file.write(name)
    except FileExistsError:
        return False
    return True


def _is_alive(claim: Path) -> bool:
    """Whether the process that made a claim still works on it."""
    try:
        machine, _, number = claim.read_text(encoding="utf-8").partition(" ")
        age = time.time() - claim.stat().st_mtime
    except OSError:  # given up just now
        return False
    if machine != platform.node() or os.name == "nt" or not number.isdecimal():
        return age < FOREIGN
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
