"""Checkpoints of runs in progress: what it takes to continue a killed training bit for bit."""

from __future__ import annotations

import json
import shutil
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from .records import Progress

PyTree = Any
SECONDS = 5.0  # between checkpoints, at least
_SHARE = 0.02  # of the time, which saving may take
_KEPT = 2  # checkpoints: should the newest be damaged, there is one more


class Checkpoint:
    """The newest checkpoints of runs that train together: their records, and the carry.

    Orbax writes a checkpoint in one step, so that a kill leaves a whole one or none. Saving waits
    for the disk: in the background it would disturb the clock that training is measured by.
    """

    def __init__(self, folder: Path, identity: Any, report: Callable[[str], None]):
        """Nothing is written yet.

        Args:
          folder: of these runs alone.
          identity: plain values that say what is trained; checkpoints of others are not taken.
          report: called with a line of text if a checkpoint turns out to be damaged.
        """
        self._folder = folder.resolve()
        self._identity = json.loads(json.dumps(identity))
        self._report = report
        self._due = time.monotonic() + SECONDS

    def offer(self, carry: PyTree, now: Progress) -> None:
        """Save, unless the last time was only just now."""
        clock = time.monotonic()
        if clock < self._due:
            return
        arrays = {"carry": _to_host(carry), "records": _records(now)}
        content = {"identity": self._identity, "step": now.step, "seconds": now.seconds}
        with self._manager() as manager:
            manager.save(
                now.step,
                args=ocp.args.Composite(
                    carry=ocp.args.StandardSave(arrays["carry"]),
                    records=ocp.args.StandardSave(arrays["records"]),
                    content=ocp.args.JsonSave({**content, "checksum": _checksum(arrays)}),
                ),
            )
        end = time.monotonic()
        self._due = end + max(SECONDS, (end - clock) / _SHARE)

    def restore(self, carry: PyTree, now: Progress) -> PyTree:
        """Bring fresh runs to where their newest good checkpoint was.

        A damaged checkpoint is reported and removed, and the one before it taken; without any,
        the runs start over.

        Args:
          carry: before the first step, which tells structure, shapes and types.
          now: filled with what was recorded.

        Returns:
          The carry of the checkpoint, or the argument if there is none.
        """
        if not self._folder.is_dir():
            return carry
        with self._manager() as manager:
            for step in sorted(manager.all_steps(), reverse=True):
                try:
                    arrays, content = _read(manager, step, _to_host(carry))
                except Exception as error:  # each part of Orbax has its own way to fail
                    self._report(
                        f"{self._folder.parent.name}: the checkpoint at step {step:,} is damaged "
                        f"({type(error).__name__}); continuing from an earlier one, if any."
                    )
                    manager.delete(step)
                    continue
                if content["identity"] != self._identity:
                    break
                now.step, now.seconds = content["step"], content["seconds"]
                _fill(now, arrays["records"])
                return _like(carry, arrays["carry"])
        shutil.rmtree(self._folder)  # of something else, or damaged
        return carry

    def _manager(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=_KEPT, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        return ocp.CheckpointManager(self._folder, options=options)


def _read(manager: ocp.CheckpointManager, step: int, carry: PyTree) -> tuple[PyTree, dict]:
    restored = manager.restore(
        step,
        args=ocp.args.Composite(
            carry=ocp.args.StandardRestore(carry),
            records=ocp.args.StandardRestore(),
            content=ocp.args.JsonRestore(),
        ),
    )
    arrays = {"carry": restored["carry"], "records": restored["records"]}
    # Orbax finds truncated files and damaged indices; not every changed byte of an array.
    if restored["content"]["checksum"] != _checksum(arrays):
        raise ValueError("the checksum of the arrays differs")
    return arrays, restored["content"]


def _records(now: Progress) -> dict[str, PyTree]:
    """All that was recorded, as arrays: steps, and evaluations along a leading axis."""
    chunks = {name: np.concatenate([c[name] for c in now.chunks], axis=1) for name in now.chunks[0]}
    stacked = jax.tree.map(lambda *x: np.stack(x), *now.evaluations) if now.evaluations else {}
    return {"steps": chunks, "evaluations": stacked}


def _fill(now: Progress, records: dict[str, PyTree]) -> None:
    now.chunks.append(records["steps"])
    stacked = records["evaluations"] or {"step": ()}
    now.evaluations += [
        {
            **jax.tree.map(lambda x, place=place: x[place], stacked),
            "step": int(stacked["step"][place]),
            "seconds": float(stacked["seconds"][place]),
        }
        for place in range(len(stacked["step"]))
    ]


def _to_host(tree: PyTree) -> PyTree:
    """The same tree of NumPy arrays; of a key, its data."""
    return jax.tree.map(
        lambda leaf: np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf), tree
    )


def _like(tree: PyTree, arrays: PyTree) -> PyTree:
    """Arrays as leaves of the kinds that `tree` has: on the device, bound to none, keys as keys.

    A binding would make the compiled program of the fresh state useless. The arrays are copied:
    training uses its state up, which must not share memory with NumPy's.
    """
    return jax.tree.map(
        lambda leaf, array: (
            jax.random.wrap_key_data(jnp.array(array), impl=jax.random.key_impl(leaf))
            if _is_key(leaf)
            else jnp.array(array)
        ),
        tree,
        arrays,
    )


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _checksum(tree: PyTree) -> int:
    value = 0
    for leaf in jax.tree.leaves(tree):
        value = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), value)
    return value
