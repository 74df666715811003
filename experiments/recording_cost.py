"""What recording costs: `python -m mekax.experiments.recording_cost`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from ..optimizers import adameka, metrics
from . import Recorder

_STEPS = 200
_REPEATS = 3
_WIDTH = 128  # of the network, and examples per step


def main() -> None:
    """Time the steps of a small network, recorded at every step and not; print both."""
    plain, recorded = [], []
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(_REPEATS):
            plain.append(_seconds_per_step(lambda step, state, loss: None))
            with Recorder(Path(folder) / f"{repeat}.jsonl") as recorder:
                recorded.append(
                    _seconds_per_step(
                        lambda step, state, loss, recorder=recorder: recorder.write(
                            step, metrics(state), loss=loss
                        )
                    )
                )
        path = Path(folder) / "calls.jsonl"
        with Recorder(path) as recorder:
            seconds = _seconds_per_call(recorder)
        size = path.stat().st_size / _STEPS
    print(f"a step, not recorded: {1e3 * min(plain):.3f} ms (best of {_REPEATS} times {_STEPS})")
    print(f"a step, recorded:     {1e3 * min(recorded):.3f} ms")
    print(f"metrics and write, the device being idle: {1e6 * seconds:.0f} µs")
    print(f"a record: {size:.0f} bytes")


def _seconds_per_step(watch: Callable[..., None]) -> float:
    """Train with a call after every step."""
    state, step = _training()
    state, loss = step(state, jax.random.key(0))
    watch(0, state[1], loss)  # compiled
    keys = list(jax.random.split(jax.random.key(1), _STEPS))
    jax.block_until_ready((state, keys))
    clock = time.perf_counter()
    for count, key in enumerate(keys, start=1):
        state, loss = step(state, key)
        watch(count, state[1], loss)
    jax.block_until_ready(state)
    return (time.perf_counter() - clock) / _STEPS


def _seconds_per_call(recorder: Recorder) -> float:
    """Time `recorder.write(step, metrics(state), loss=loss)` alone."""
    state, step = _training()
    (_, state), loss = jax.block_until_ready(step(state, jax.random.key(0)))
    recorder.write(0, metrics(state), loss=loss)
    clock = time.perf_counter()
    for count in range(_STEPS):
        recorder.write(count, metrics(state), loss=loss)
    recorder.flush()
    return (time.perf_counter() - clock) / _STEPS


def _training():
    """Parameters with optimizer state, and a compiled step that donates them."""
    tx = adameka()
    shapes = ((_WIDTH, _WIDTH), (_WIDTH, 1))
    keys = jax.random.split(jax.random.key(2))
    params = [
        jax.random.normal(key, shape) / _WIDTH**0.5 for key, shape in zip(keys, shapes, strict=True)
    ]

    def step(state, key):
        params, inner = state
        x = jax.random.normal(key, (_WIDTH, _WIDTH))

        def value_fn(params):
            return (jnp.tanh(x @ params[0]) @ params[1])[:, 0] ** 2

        value, grads = jax.value_and_grad(lambda p: value_fn(p).mean())(params)
        updates, inner = tx.update(grads, inner, params, value=value, grad=grads, value_fn=value_fn)
        return (optax.apply_updates(params, updates), inner), value

    return (params, tx.init(params)), jax.jit(step, donate_argnums=0)


if __name__ == "__main__":
    main()
