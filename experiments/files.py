"""Writing results: strict JSON, in one step, with the versions of what computed them."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
from pathlib import Path
from typing import Any

PACKAGES = ("mekax", "jax", "jaxlib", "optax", "flax", "numpy")
_DIGITS = 9  # significant digits of a number in a file: enough to tell any two of float32 apart


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON in one step: the file is the old one or the new one, never half of it.

    Numbers that are not finite become null; arrays become lists; floats keep 9 digits,
    which give back every float32 exactly.
    """
    text = json.dumps(plain(content), allow_nan=False, ensure_ascii=False)
    # One name for all attempts: what a killed program leaves, the next write takes away.
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())  # or a crash of the machine could leave an empty file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """The same content in dicts, lists, strings, numbers, booleans and None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # arrays and their scalars
        return plain(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return value


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that a result depends on."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def device() -> dict[str, Any]:
    """What the computation runs on."""
    import jax
    import jax.numpy as jnp

    (first,) = jnp.zeros(()).devices()  # also where another one than JAX's first was asked for
    return {"platform": first.platform, "kind": first.device_kind, "count": jax.device_count()}
