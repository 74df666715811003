"""What a program of the gallery consists of, and what several of them share."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..problem import PyTree

Carry = Any  # what a loop carries from step to step: parameters, state, and what else there is
Step = Callable[[Any, Carry, PyTree], tuple[Carry, jax.Array]]  # (tx, carry, batch) -> carry, loss


def _first_two(carry: Carry) -> tuple[PyTree, PyTree]:
    return carry[0], carry[1]


class Program(NamedTuple):
    """A public training program, rebuilt.

    Attributes:
      project: whose it is.
      url: where it is.
      setting: their optimizer and rate, as they write it.
      optimizer: builds it, given the number of steps.
      published_steps: how many steps theirs makes.
      steps: how many are made here; of `quick`, fewer.
      quick: how many are made to see that all works.
      start: `(tx, key) -> carry`, with new parameters.
      batch: `key -> batch`; all optimizers get the same batches.
      theirs: the step as in the public program.
      ours: the step with `adameka`.
      judge: `(params, carry) -> scalar`, lower is better; parameters may be the average.
      judged: what that is.
      parts: of a carry, the parameters that are judged and the state of their optimizer.
      jit: compiles a step, so that it has `lower`.
    """

    project: str
    url: str
    setting: str
    optimizer: Callable[[int], Any]
    published_steps: int
    steps: int
    quick: int
    start: Callable[[Any, jax.Array], Carry]
    batch: Callable[[jax.Array], PyTree]
    theirs: Step
    ours: Step
    judge: Callable[[PyTree, Carry], Any]
    judged: str
    parts: Callable[[Carry], tuple[PyTree, PyTree]] = _first_two
    jit: Callable[..., Any] = jax.jit


def begin(init: Callable[[jax.Array], PyTree]) -> Callable[[Any, jax.Array], Carry]:
    """The `start` of programs that carry parameters and state, and nothing else."""
    init = jax.jit(init)

    def start(tx: optax.GradientTransformation, key: jax.Array) -> Carry:
        params = init(key)
        return params, tx.init(params)

    return start


@lru_cache(maxsize=1)
def digits() -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Handwritten digits to train on and to test on: pixels from 0 to 1, (n, 64), and labels."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images, labels = jnp.asarray(images / 16, jnp.float32), jnp.asarray(labels, jnp.int32)
    return (images[:1500], labels[:1500]), (images[1500:], labels[1500:])


def sample(data: PyTree, n: int) -> Callable[[jax.Array], PyTree]:
    """The `batch` of programs that draw n of the rows of some arrays.

    Example:
      >>> draw = sample({"x": jnp.arange(10)}, 4)
      >>> draw(jax.random.key(0))["x"].shape
      (4,)
    """
    count = len(jax.tree.leaves(data)[0])

    def batch(key: jax.Array) -> PyTree:
        rows = jax.random.choice(key, count, (n,))
        return jax.tree.map(lambda leaf: leaf[rows], data)

    return batch
