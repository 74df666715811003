"""Decoded images kept on disk: decoding tens of thousands of small files takes many seconds."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

from .prepared_data import Prepared

Arrays = dict[str, np.ndarray]


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/mekax`, by default `~/.cache/mekax`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mekax"


def cache_file(prepared: Prepared) -> Path:
    """File for the decoded arrays; its name changes whenever a source file does."""
    return cache_dir() / f"{_prefix(prepared)}{_fingerprint(prepared)}.npz"


def read(prepared: Prepared) -> Arrays | None:
    """The cached arrays, or None if there are none or they are damaged."""
    try:
        with np.load(cache_file(prepared), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):
        return None
    return arrays if _fits(arrays, prepared) else None


def write(prepared: Prepared, arrays: Arrays) -> bool:
    """Keep the arrays for later, in one step; False if the cache folder cannot be written to."""
    target = cache_file(prepared)
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, suffix=".tmp", delete=False) as file:
            temporary = Path(file.name)
            np.savez(file, allow_pickle=False, **arrays)
        temporary.replace(target)
    except OSError:
        return False
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    for old in target.parent.glob(f"{_prefix(prepared)}*.npz"):
        if old != target:
            old.unlink(missing_ok=True)
    return True


def _fits(arrays: Arrays, prepared: Prepared) -> bool:
    return all(
        arrays.get(f"{split}_image", np.empty(0)).dtype == np.uint8
        and arrays[f"{split}_image"].ndim == 4
        and len(arrays[f"{split}_image"]) == count
        and arrays.get(f"{split}_label", np.empty(0)).shape == (count,)
        for split, count in prepared.examples.items()
    )


def _prefix(prepared: Prepared) -> str:
    place = hashlib.sha256(str(prepared.folder.resolve()).encode()).hexdigest()[:8]
    return f"{prepared.name}-{prepared.version}-{place}-"


def _fingerprint(prepared: Prepared) -> str:
    digest = hashlib.sha256()
    for file in prepared.files:
        status = file.stat()
        digest.update(f"{file.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
