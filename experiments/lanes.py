"""Many short trainings at once: lanes of one vectorized program, one per setting and seed.

Small problems leave a processor waiting for the next operation; lanes share each operation. Where
`training` watches a clock, lanes count steps: all of them make the same number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..optimizers import metrics
from .data_order import batches
from .problems import Problem
from .problems.evaluation import first, measures

PyTree = Any
Setting = Mapping[str, float]  # of one lane; the numbers are traced
Place = Callable[[PyTree, PyTree], PyTree]  # (state, params) -> params to evaluate at
AT_ONCE = 6  # lanes: more of them share operations, fewer share the cache
GAUGES = ("step_size", "radius", "slope_ratio", "gain", "num_adaptations", "num_rejected")
LAST = "last"


def known(state: PyTree, params: PyTree, train: PyTree) -> Mapping[str, jax.Array]:
    """What the optimizer itself says, of `GAUGES`."""
    del params, train
    said = metrics(state)
    return {name: said[name] for name in GAUGES if name in said}


@dataclass(frozen=True)
class Method:
    """An optimizer as lanes need it.

    Attributes:
      build: `(setting, steps) -> transformation`; the setting is traced, the steps are not.
      places: where to evaluate, by name; one training serves all of them.
      gauges: `(state, params, train) -> scalars by name`, read at every look; `train` are the
        training examples that lanes are judged on.
    """

    build: Callable[[Mapping[str, Any], int], optax.GradientTransformationExtraArgs]
    places: Mapping[str, Place] = field(
        default_factory=lambda: {LAST: lambda state, params: params}
    )
    gauges: Callable[[PyTree, PyTree, PyTree], Mapping[str, jax.Array]] = known


class Budget(NamedTuple):
    """How long a lane trains and how it is judged.

    Attributes:
      steps: a multiple of `looks`.
      batch_size: examples per step.
      looks: how often to evaluate, at equal distances, the last time at the end.
      judged: training and test examples to evaluate on, at most.
    """

    steps: int
    batch_size: int
    looks: int
    judged: int


@dataclass(frozen=True)
class Recorded:
    """What the lanes did; they are ordered by setting, then seed.

    Attributes:
      loss: of each batch before its step, shape (lanes, steps).
      looks: numbers of steps after which there was an evaluation, shape (looks,).
      measures: by place, `train_loss`, `test_loss`, …, each of shape (lanes, looks).
      gauges: those of the method at each look, each of shape (lanes, looks).
    """

    loss: np.ndarray
    looks: np.ndarray
    measures: dict[str, dict[str, np.ndarray]]
    gauges: dict[str, np.ndarray]


class Carry(NamedTuple):
    """What one step of a lane hands to the next."""

    params: PyTree
    state: PyTree
    key: jax.Array
    count: jax.Array


Train = Callable[..., Recorded]


def compile_lanes(problem: Problem, method: Method, budget: Budget) -> Train:
    """Make the training of one problem by one method, compiled once for every call.

    Args:
      problem: what to minimize.
      method: the optimizer.
      budget: of every lane.

    Returns:
      `train(settings, seeds, progress)`, which trains every setting with every seed and calls
      `progress`, if given, with the part that is done. All settings have the same names. The
      same seed means the same initial parameters, data order and keys, whatever the method.
    """
    start = jax.jit(jax.vmap(_start(problem, method, budget)))
    advance = jax.vmap(_advance(problem, method, budget), in_axes=(0, 0, 0, None))
    advance = jax.jit(advance, donate_argnums=1)
    examples = {
        "data": problem.data,
        "train": first(problem.data, budget.judged),
        "test": first(problem.test, budget.judged),
    }

    def train(
        settings: Sequence[Setting],
        seeds: Sequence[int],
        progress: Callable[[float], None] = lambda fraction: None,
    ) -> Recorded:
        lanes = [(setting, seed) for setting in settings for seed in seeds]
        groups = -(-len(lanes) // AT_ONCE)
        width = -(-len(lanes) // groups)  # the same for all groups, so that one program serves
        found = []
        for group in range(groups):
            members = lanes[group * width : (group + 1) * width]
            padded = members + members[-1:] * (width - len(members))
            numbers = {
                name: jnp.asarray([setting[name] for setting, _ in padded], jnp.float32)
                for name in padded[0][0]
            }
            keys = jax.vmap(jax.random.key)(jnp.asarray([seed for _, seed in padded]))
            rows = np.stack([_rows(seed, problem, budget) for _, seed in padded])
            carry, pieces = start(numbers, keys), []
            for piece in np.split(rows, budget.looks, axis=1):
                carry, record = advance(numbers, carry, piece, examples)
                pieces.append(jax.device_get(record))
                progress((group + len(pieces) / budget.looks) / groups)
            whole = jax.tree.map(lambda *x: np.stack(x, axis=1), *pieces)
            found.append(whole)
        joined = jax.tree.map(lambda *x: np.concatenate(x)[: len(lanes)], *found)
        return Recorded(
            loss=joined["loss"].reshape(len(lanes), budget.steps),
            looks=np.arange(1, budget.looks + 1) * (budget.steps // budget.looks),
            measures=joined["measures"],
            gauges=joined["gauges"],
        )

    return train


def one_step(problem: Problem, tx: optax.GradientTransformationExtraArgs) -> Callable[..., Any]:
    """`(carry, batch) -> (carry, loss)`: what every optimizer is given, and nothing else."""

    def step(carry: Carry, batch: PyTree) -> tuple[Carry, jax.Array]:
        params, state, key, count = carry
        batch_key = jax.random.fold_in(key, count)

        def value_fn(params: PyTree) -> jax.Array:
            return problem.losses(params, batch, batch_key)

        value, grads = jax.value_and_grad(lambda p: jnp.mean(value_fn(p)))(params)
        updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=value_fn)
        params: PyTree = optax.apply_updates(params, updates)
        return Carry(params, state, key, count + 1), value

    return step


def _rows(seed: int, problem: Problem, budget: Budget) -> np.ndarray:
    return batches(seed, 0, budget.steps, problem.examples, budget.batch_size)


def _start(problem: Problem, method: Method, budget: Budget) -> Callable[..., Carry]:
    def start(setting: Mapping[str, jax.Array], key: jax.Array) -> Carry:
        init_key, step_key = jax.random.split(key)
        params = problem.init(init_key)
        state = method.build(setting, budget.steps).init(params)
        return Carry(params, state, step_key, jnp.zeros((), jnp.int32))

    return start


def _advance(problem: Problem, method: Method, budget: Budget) -> Callable[..., Any]:
    def advance(
        setting: Mapping[str, jax.Array], carry: Carry, rows: jax.Array, examples: PyTree
    ) -> tuple[Carry, PyTree]:
        step = one_step(problem, method.build(setting, budget.steps))

        def on_rows(carry: Carry, rows: jax.Array) -> tuple[Carry, jax.Array]:
            return step(carry, jax.tree.map(lambda leaf: leaf[rows], examples["data"]))

        carry, loss = jax.lax.scan(on_rows, carry, rows)
        gauges = method.gauges(carry.state, carry.params, examples["train"])
        return carry, {
            "loss": loss,
            "measures": {
                name: measures(
                    problem, place(carry.state, carry.params), examples["train"], examples["test"]
                )
                for name, place in method.places.items()
            },
            "gauges": {name: jnp.float32(value) for name, value in gauges.items()},
        }

    return advance
