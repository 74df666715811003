"""Training goes on from an Orbax checkpoint bit for bit, wherever it was killed.

The file is also the program that is killed: `python test_checkpoint.py FOLDER`.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import jax
import jax.numpy as jnp
import mekax.optimizers as mekax
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

KILLS = 20
STEPS = 200  # more than 20 lives can make
EVERY = 4  # steps between checkpoints
BATCH = 16

TRANSFORMATIONS = {
    "meka": mekax.meka,
    "adameka": mekax.adameka,
    "scale_by_kalman_filter": lambda: optax.chain(
        mekax.scale_by_kalman_filter(covariance="per_leaf"), optax.adam(0.01)
    ),
    "scale_by_expected_improvement": lambda: optax.chain(
        optax.scale_by_adam(), mekax.scale_by_expected_improvement()
    ),
    "warm_start": lambda: mekax.warm_start(0.05, until=3, adaptive=mekax.adameka()),
}


def batch(count):
    """The examples of a step, whichever process asks for them."""
    rng = np.random.default_rng(count)
    x = rng.normal(size=(BATCH, 3)).astype(np.float32)
    return x, (x.sum(1) + rng.normal(size=BATCH)).astype(np.float32)


def initial(tx):
    params = {"w": np.zeros(3, np.float32), "b": np.float32(1.0)}
    return jax.jit(lambda: (jax.tree.map(jnp.asarray, params), tx.init(params)))()


def step_of(tx):
    @jax.jit
    def step(carry, batch):
        params, state = carry
        x, y = batch

        def value_fn(params):
            return jnp.square(x @ params["w"] + params["b"] - y)

        grads = jax.grad(lambda p: value_fn(p).mean())(params)
        updates, state = tx.update(grads, state, params, value_fn=value_fn)
        return optax.apply_updates(params, updates), state

    return step


def checkpoints(folder):
    options = ocp.CheckpointManagerOptions(
        max_to_keep=2, enable_async_checkpointing=False, cleanup_tmp_directories=True
    )
    return ocp.CheckpointManager(folder, options=options)


def train(folder=None, kill_after=None, delay=0.0):
    """Train to the end, with checkpoints in a folder if there is one; return the final carry.

    Args:
      folder: where to continue from and to save; None trains without interruption.
      kill_after: number of steps after which the process kills itself; None for never.
      delay: seconds from there to the kill, which thus falls into a step or into a checkpoint.
    """
    tx = mekax.meka()
    step, carry = step_of(tx), initial(tx)
    if folder is None:
        for count in range(STEPS):
            carry = step(carry, batch(count))
        return carry
    with checkpoints(folder) as manager:
        start = manager.latest_step() or 0
        if start:
            target = jax.tree.map(ocp.utils.to_shape_dtype_struct, carry)
            carry = manager.restore(start, args=ocp.args.StandardRestore(target))
        for count in range(start, STEPS):
            if count - start == kill_after:
                threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
            carry = step(carry, batch(count))
            if (count + 1) % EVERY == 0:
                manager.save(count + 1, args=ocp.args.StandardSave(carry))
                if kill_after is not None and count - start >= kill_after:
                    time.sleep(600)  # so that a slow timer lets no more steps be made
    return carry


def live(life):
    """Run a function in a process of its own; return the signal that killed it, 0 if none did.

    A fork of this process, which has imported everything but never computed: it starts at once.
    """
    pid = os.fork()
    if pid == 0:
        try:
            life()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a process failed by itself")
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def kill_and_resume(out):
    """Write the final carries of an uninterrupted run and of a much interrupted one to files."""

    def write(name, *arguments):
        leaves = jax.tree.leaves(train(*arguments))
        np.savez(out / name, *map(np.asarray, leaves))

    live(lambda: write("uninterrupted.npz"))
    folder, rng = out / "checkpoints", np.random.default_rng(2020)
    signals, steps = [], []
    for _ in range(KILLS):
        kill_after, delay = int(rng.integers(0, 8)), float(rng.uniform(0.0, 0.1))
        signals.append(live(lambda k=kill_after, d=delay: train(folder, k, d)))
        finished = [int(path.name) for path in folder.glob("*") if path.name.isdigit()]
        steps.append(max(finished, default=0))
    live(lambda: write("resumed.npz", folder))
    print(json.dumps({"signals": signals, "steps": steps}))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
def test_killed_runs_resume_bit_for_bit(tmp_path):
    process = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        env={
            **os.environ,
            # Compiling takes longer than all the rest; one life does it for all.
            "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        },
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    report = json.loads(process.stdout)
    assert report["signals"] == [signal.SIGKILL] * KILLS
    # Killed at all sorts of points, but never set back.
    assert report["steps"] == sorted(report["steps"])
    assert 0 < report["steps"][-1] < STEPS
    one, other = (np.load(tmp_path / f"{name}.npz") for name in ("uninterrupted", "resumed"))
    assert one.files == other.files
    for name in one.files:
        assert one[name].tobytes() == other[name].tobytes()


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_state_goes_through_a_checkpoint(name, tmp_path):
    tx = TRANSFORMATIONS[name]()
    step, carry = step_of(tx), initial(tx)
    for count in range(5):
        carry = step(carry, batch(count))
    with checkpoints(tmp_path) as manager:
        manager.save(5, args=ocp.args.StandardSave(carry))
    with checkpoints(tmp_path) as manager:
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, initial(tx))
        restored = manager.restore(5, args=ocp.args.StandardRestore(target))
    assert_same(restored, carry)
    for count in range(5, 10):
        carry, restored = step(carry, batch(count)), step(restored, batch(count))
    assert_same(restored, carry)


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert (a.dtype, a.shape, a.weak_type) == (b.dtype, b.shape, b.weak_type)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


if __name__ == "__main__":
    kill_and_resume(Path(sys.argv[1]))
