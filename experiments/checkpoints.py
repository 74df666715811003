"""Checkpoints of a run in progress: what it takes to continue a killed run bit for bit."""

from __future__ import annotations

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

from .progress import title
from .runs import Evaluation, Run

PyTree = Any
FOLDER = "checkpoint"  # in the folder of the results
SECONDS = 5.0  # between checkpoints, at least
_SHARE = 0.02  # of the time, which saving may take
_KEPT = 2  # checkpoints: should the newest be damaged, there is one more


class Checkpoints:
    """The newest checkpoints of one run: its record so far, and what one step hands to the next.

    Each run has a folder of its own. Orbax writes a checkpoint in one step, so that a kill leaves
    a whole one or none. Saving waits for the disk: in the background it would disturb the clock
    that training is measured by.
    """

    def __init__(self, out: Path, run: Run, report: Callable[[str], None] = lambda text: None):
        """Look for checkpoints of the run; nothing is written yet.

        Args:
          out: folder of the results.
          run: whose checkpoints these are.
          report: called with a line of text if a checkpoint turns out to be damaged.
        """
        name = f"{run.problem}-{run.spec.label}-seed-{run.seed}".replace(":", "-")
        self._folder = out.resolve() / FOLDER / name
        self._title = title(run)
        self._report = report
        self._due = time.monotonic() + SECONDS

    def offer(self, run: Run, carry: PyTree) -> None:
        """Save, unless the last time was only just now."""
        clock = time.monotonic()
        if clock < self._due:
            return
        arrays = {"carry": _to_host(carry), "records": _records(run)}
        with self._manager() as manager:
            manager.save(
                run.steps,
                args=ocp.args.Composite(
                    carry=ocp.args.StandardSave(arrays["carry"]),
                    records=ocp.args.StandardSave(arrays["records"]),
                    run=ocp.args.JsonSave({**_plain(run), "checksum": _checksum(arrays)}),
                ),
            )
        now = time.monotonic()
        self._due = now + max(SECONDS, (now - clock) / _SHARE)

    def restore(self, run: Run, carry: PyTree) -> PyTree:
        """Bring a fresh run to where its newest good checkpoint was.

        A damaged checkpoint is reported and removed, and the one before it taken; without any,
        the run starts over.

        Args:
          run: fresh; filled with what was recorded.
          carry: the state before the first step, which tells structure, shapes and types.

        Returns:
          The state of the checkpoint, or the argument if there is none.
        """
        if not self._folder.is_dir():
            return carry
        with self._manager() as manager:
            for step in sorted(manager.all_steps(), reverse=True):
                try:
                    arrays, content = _read(manager, step, _to_host(carry))
                except Exception as error:  # each part of Orbax has its own way to fail
                    self._report(
                        f"{self._title}: the checkpoint at step {step:,} is damaged "
                        f"({type(error).__name__}); continuing from an earlier one, if any."
                    )
                    manager.delete(step)
                    continue
                _fill(run, content, arrays["records"])
                return _like(carry, arrays["carry"])
        return carry

    def remove(self) -> None:
        """Remove what there is of this run, and the folder of checkpoints with the last of them."""
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._folder.parent.is_dir() and not any(self._folder.parent.iterdir()):
            self._folder.parent.rmdir()

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
            run=ocp.args.JsonRestore(),
        ),
    )
    arrays = {"carry": restored["carry"], "records": restored["records"]}
    content = restored["run"]
    # Orbax finds truncated files and damaged indices; not every changed byte of an array.
    if content["checksum"] != _checksum(arrays):
        raise ValueError("the checksum of the arrays differs")
    return arrays, content


def _plain(run: Run) -> dict[str, Any]:
    """All of a run but its records, numbers exact."""
    return {
        "steps": run.steps,
        "compile_seconds": run.compile_seconds,
        "evaluations": [
            {"step": e.step, "seconds": e.seconds, "values": e.values} for e in run.evaluations
        ],
    }


def _records(run: Run) -> dict[str, np.ndarray]:
    return {name: run.record(name) for name in run.chunks[0]}


def _fill(run: Run, content: dict[str, Any], records: dict[str, np.ndarray]) -> None:
    run.compile_seconds += content["compile_seconds"]
    run.evaluations.extend(Evaluation(**evaluation) for evaluation in content["evaluations"])
    run.add(records)


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
