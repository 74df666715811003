"""The same result, to rounding, on one device and on many, in one process and in two."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest

PROGRAMS = Path(__file__).parent / "programs"
needs_shard_map = pytest.mark.skipif(
    not hasattr(jax, "shard_map"), reason="jax.shard_map is newer than this jax"
)


def environment(devices):
    flags = os.environ.get("XLA_FLAGS", "")
    flags += f" --xla_force_host_platform_device_count={devices}"
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def run(program, devices):
    """The numbers that a program prints at the end."""
    result = subprocess.run(
        [sys.executable, PROGRAMS / program],
        env=environment(devices),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@needs_shard_map
def test_eight_devices_equal_one():
    differences = run("data_parallel.py", devices=8)
    assert len(differences) == 9
    for way, difference in differences.items():
        # The argmax of a flat utility turns rounding of 1e-7 into its square root at worst.
        assert difference < 1e-3, (way, difference)


@pytest.mark.skipif(not hasattr(jax.sharding, "AxisType"), reason="axis types are newer")
def test_split_parameters_split_the_state_and_change_nothing():
    differences = run("split_parameters.py", devices=4)
    assert len(differences) > 30
    assert max(differences.values()) < 1e-9


@needs_shard_map
def test_two_processes_equal_one():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    program = PROGRAMS / "two_processes.py"
    running = [
        subprocess.Popen(
            [sys.executable, program, str(rank), port],
            env=environment(1),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=240) for process in running]
    for process, (_, errors) in zip(running, outputs, strict=True):
        assert process.returncode == 0, errors[-2000:]
    results = [json.loads(out.splitlines()[-1]) for out, _ in outputs]
    assert [devices for devices, _ in results] == [2, 2]
    assert results[0] == results[1]
    assert results[0][1] == pytest.approx(_single_process(), rel=1e-4, abs=1e-5)


def _single_process():
    import jax.numpy as jnp
    import numpy as np
    import optax
    from mekax.optimizers import meka

    rng = np.random.default_rng(0)
    tx = meka()
    params = jnp.ones(4)
    state = tx.init(params)

    @jax.jit
    def step(params, state, batch):
        def value_fn(p):
            return jnp.square(jnp.tanh(batch @ p) - 0.5)

        grads = jax.grad(lambda p: value_fn(p).mean())(params)
        updates, state = tx.update(grads, state, params, value_fn=value_fn)
        return optax.apply_updates(params, updates), state

    for _ in range(5):
        batch = rng.normal(size=(32, 4)).astype(np.float32)
        params, state = step(params, state, batch)
    return params.tolist()
