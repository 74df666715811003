"""The compiled part of training: steps of one optimizer on one problem."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..optimizers import metrics
from .optimizer_specs import build
from .problems import Problem

PyTree = Any
Records = dict[str, jax.Array]
CHUNK = 64  # steps between looks at the clock, at most


class Carry(NamedTuple):
    """What one step hands to the next."""

    params: PyTree
    state: PyTree
    key: jax.Array
    count: jax.Array


@dataclass(frozen=True)
class Program:
    """Compiled training of one problem by one kind of optimizer, for any seed and learning rate.

    Attributes:
      start: `(seed, learning_rate) -> Carry`.
      advance: `(carry, rows) -> (carry, records)`: steps on `rows`, the examples of each batch,
        shape (at most CHUNK, batch_size); uses up its argument `carry`.
      batch_size: number of examples per step.
      compile_seconds: how long compiling and a first execution took.
    """

    start: Callable[[int, float | None], Carry]
    advance: Callable[[Carry, np.ndarray], tuple[Carry, dict[str, jax.Array]]]
    batch_size: int
    compile_seconds: float


def compile_program(problem: Problem, kind: str, batch_size: int) -> Program:
    """Compile the training loop, which then serves every seed and learning rate."""

    def start(key: jax.Array, rate: jax.Array) -> Carry:
        init_key, step_key = jax.random.split(key)
        params = problem.init(init_key)
        state = build(kind, rate).init(params)
        return Carry(params, state, step_key, jnp.zeros((), jnp.int32))

    tx = build(kind, 1.0)  # the rate in the state counts

    def step(carry: Carry, batch: PyTree) -> tuple[Carry, dict[str, jax.Array]]:
        params, state, key, count = carry
        batch_key = jax.random.fold_in(key, count)

        def value_fn(params: PyTree) -> jax.Array:
            return problem.losses(params, batch, batch_key)

        value, grads = jax.value_and_grad(lambda p: jnp.mean(value_fn(p)))(params)
        updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=value_fn)
        params: PyTree = optax.apply_updates(params, updates)
        records = {
            "loss": value,
            "gradient_norm": optax.tree.norm(grads),
            "step_length": optax.tree.norm(updates),
            **_gauges(state),
        }
        return Carry(params, state, key, count + 1), records

    def advance_one(
        loop: tuple[Carry, Records], data: PyTree, rows: jax.Array, index: jax.Array
    ) -> tuple[Carry, Records]:
        carry, records = loop
        carry, record = step(carry, jax.tree.map(lambda leaf: leaf[rows[index]], data))
        return carry, {name: records[name].at[index].set(record[name]) for name in records}

    clock = time.perf_counter()
    begin = jax.jit(start).lower(jax.random.key(0), jnp.float32(1.0)).compile()
    carry = begin(jax.random.key(0), jnp.float32(1.0))
    batch = jax.tree.map(lambda leaf: leaf[:batch_size], problem.data)
    names = jax.eval_shape(step, carry, batch)[1]

    @partial(jax.jit, donate_argnums=0)
    def advance(
        loop: tuple[Carry, Records], data: PyTree, rows: jax.Array, count: jax.Array
    ) -> tuple[Carry, Records]:
        # The number of steps is dynamic, so that one program serves every chunk.
        return jax.lax.fori_loop(
            0, count, lambda index, loop: advance_one(loop, data, rows, index), loop
        )

    def run(carry: Carry, rows: np.ndarray) -> tuple[Carry, Records]:
        records = {name: jnp.zeros(CHUNK, jnp.float32) for name in names}
        padded = np.pad(rows, ((0, CHUNK - len(rows)), (0, 0)))
        carry, records = advance((carry, records), problem.data, padded, np.int32(len(rows)))
        return carry, {name: values[: len(rows)] for name, values in records.items()}

    # Compiles, and the first execution is slower than the rest: neither counts as training.
    jax.block_until_ready(run(carry, np.zeros((1, batch_size), np.int32)))
    return Program(
        start=lambda seed, rate: begin(jax.random.key(seed), jnp.float32(rate or 0.0)),
        advance=run,
        batch_size=batch_size,
        compile_seconds=time.perf_counter() - clock,
    )


def _gauges(state: PyTree) -> dict[str, jax.Array]:
    """What the optimizer knows; of a baseline, its learning rate as the step size."""
    known = metrics(state)
    if not known and hasattr(state, "hyperparams"):
        known = {"step_size": state.hyperparams["learning_rate"]}
    return {name: jnp.asarray(value, jnp.float32) for name, value in known.items()}
