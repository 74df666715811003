"""Measures of success: averages over training and test examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from .problem import Problem

PyTree = Any
TRAIN_SUBSET = 10_000  # examples that the reported training loss is averaged over, at most
CHUNK = 500  # examples measured at a time


def evaluator(problem: Problem) -> Callable[[PyTree], dict[str, float]]:
    """`params -> {train_loss, test_loss, …}`: what the problem's `evaluate` is."""
    averages = jax.jit(lambda params, train, test: measures(problem, params, train, test))
    train = first(problem.data, TRAIN_SUBSET)

    def evaluate(params: PyTree) -> dict[str, float]:
        values = jax.device_get(averages(params, train, problem.test))
        return {name: float(value) for name, value in values.items()}

    return evaluate


def measures(problem: Problem, params: PyTree, train: PyTree, test: PyTree) -> dict[str, jax.Array]:
    """The loss averaged over `train`, everything the problem measures averaged over `test`.

    Traceable, and safe under `vmap` over parameters.
    """
    on_test = _averages(problem, params, test)
    return {
        "train_loss": _averages(problem, params, train)["loss"],
        **{f"test_{name}": value for name, value in on_test.items()},
    }


def first(examples: PyTree, count: int) -> PyTree:
    """At most so many of the examples; data are stored in shuffled order, so they are a sample."""
    return jax.tree.map(lambda leaf: leaf[:count], examples)


def _averages(problem: Problem, params: PyTree, examples: PyTree) -> dict[str, jax.Array]:
    def one(example: PyTree) -> dict[str, jax.Array]:
        values = problem.measure(params, jax.tree.map(lambda leaf: leaf[None], example))
        return {name: value[0] for name, value in values.items()}

    values = jax.lax.map(one, examples, batch_size=CHUNK)
    return {name: jnp.mean(value, dtype=jnp.float32) for name, value in values.items()}
