"""Trainings in which anything may go wrong, as compiled programs that take a case as data."""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from hypothesis import strategies as st
from mekax.optimizers import (
    adameka,
    meka,
    metrics,
    newton_trust_region,
    scale_by_expected_improvement,
)

STEPS = 30
DIMENSIONS = 6


class Structure(NamedTuple):
    """What a program is compiled for."""

    optimizer: str
    tree: str
    batch: int


class Case(NamedTuple):
    """What a compiled program takes.

    Attributes:
      seed: of parameters and data.
      kind: index of the objective.
      loss_scale: factor of the loss.
      scale: factor of the parameters; the objective divides by it.
      duplicates: whether all examples are the same.
      fault: what is injected, NaN or an infinity; 0 for nothing.
      site: index in SITES.
      begin: step at which the fault begins.
      end: first step without it.
    """

    seed: int
    kind: int
    loss_scale: float
    scale: float
    duplicates: bool
    fault: float
    site: int
    begin: int
    end: int


OPTIMIZERS = {
    "adameka": adameka,
    "meka": meka,
    "meka-diagonal": lambda: meka(covariance="diagonal"),
    "meka-published": lambda: meka(
        "probability_of_improvement", trust_region=newton_trust_region()
    ),
    "adameka-reverse": lambda: adameka(differentiation="reverse"),
    "adam-ei": lambda: optax.chain(optax.scale_by_adam(), scale_by_expected_improvement()),
}

# Six numbers in all, some leaves scalar, some empty.
TREES = {
    "vector": [((6,), jnp.float32)],
    "nested": {"a": ((), jnp.float32), "b": [((2, 2), jnp.float32), ((0, 3), jnp.float32)]}
    | {"c": (((1,), jnp.float32),)},
    "half": {"w": ((3,), jnp.bfloat16), "v": ((3, 1), jnp.bfloat16)},
    "mixed": {"w": ((3,), jnp.float32), "v": ((3,), jnp.float16)},
}
NARROW = {"mixed"}  # with numbers up to 65,504 only

SITES = ("one loss", "all losses", "one gradient entry", "whole gradient", "one example")


def _is_leaf(node: Any) -> bool:
    return isinstance(node, tuple) and len(node) == 2 and isinstance(node[0], tuple)


def _template(name: str) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(*leaf), TREES[name], is_leaf=_is_leaf)


def _vector(params: Any) -> jax.Array:
    return jnp.concatenate([leaf.astype(jnp.float32).ravel() for leaf in jax.tree.leaves(params)])


# Losses of one example: w the parameters, x and y its data. The first two are what training is
# meant for; the others are constant, unbounded, not smooth, or not everywhere defined.
OBJECTIVES = {
    "quadratic": lambda w, x, y: jnp.sum(2.0 ** jnp.arange(DIMENSIONS) / 8 * (w - x) ** 2),
    "network": lambda w, x, y: (jnp.tanh(w @ x) * w[0] - y) ** 2,
    "zero": lambda w, x, y: 0.0 * w[0],
    "constant": lambda w, x, y: 3.0 + 0.0 * w[0],
    "linear": lambda w, x, y: w @ x,
    "concave": lambda w, x, y: -w @ w + 0.1 * w @ x,
    "saddle": lambda w, x, y: w[0] ** 2 - w[1] ** 2 + 0.1 * w @ x,
    "kinks": lambda w, x, y: jnp.sum(jnp.abs(w - x)),
    "jumps": lambda w, x, y: jnp.sum(jnp.floor(3 * w)) + (w @ x - y) ** 2,
    "exponential": lambda w, x, y: jnp.exp(30 * (w @ x)),
    "root": lambda w, x, y: jnp.sqrt(jnp.abs(w @ x)),
    "logarithm": lambda w, x, y: -jnp.log(w @ x + 1),
    "pole": lambda w, x, y: 1 / (w @ x),
    "quartic": lambda w, x, y: (w @ w) ** 2 - y * (w @ x),
}
KINDS = tuple(OBJECTIVES)
TAME = ("quadratic", "network")


class Trace(NamedTuple):
    """What happened, a row for each step.

    Attributes:
      params: before each step, and after the last one more row, shape (steps + 1, 6), float32.
      loss: of the batch.
      gradient_finite: whether the gradient was.
      metrics: by name, after each step.
    """

    params: np.ndarray
    loss: np.ndarray
    gradient_finite: np.ndarray
    metrics: dict[str, np.ndarray]

    @property
    def rejected(self) -> np.ndarray:
        """Batches left out so far."""
        return self.metrics["num_rejected"]


@cache
def program(structure: Structure):
    """The compiled training: `case ↦ Trace`."""
    tx = OPTIMIZERS[structure.optimizer]()
    template = _template(structure.tree)
    leaves, treedef = jax.tree.flatten(template)

    def init(key: jax.Array, scale: jax.Array) -> Any:
        keys = jax.random.split(key, len(leaves))
        values = [
            (scale * jax.random.normal(k, leaf.shape)).astype(leaf.dtype)
            for k, leaf in zip(keys, leaves, strict=True)
        ]
        return jax.tree.unflatten(treedef, values)

    def train(case: Case) -> tuple:
        key = jax.random.key(case.seed)
        params = init(key, case.scale)

        def step(carry, count):
            params, state = carry
            batch_key = jax.random.fold_in(key, count + 1)
            x = jax.random.normal(batch_key, (structure.batch, DIMENSIONS))
            y = jax.random.normal(jax.random.fold_in(batch_key, 0), (structure.batch,))
            x, y = (jnp.where(case.duplicates, a[:1], a) for a in (x, y))
            faulty = (case.fault != 0) & (case.begin <= count) & (count < case.end)

            def at(site: int) -> jax.Array:
                return faulty & (case.site == site)

            x = jnp.where(at(4) & (jnp.arange(structure.batch) == 0)[:, None], case.fault, x)

            def value_fn(params: Any) -> jax.Array:
                w = _vector(params) / case.scale
                losses = jax.vmap(
                    lambda x, y: jax.lax.switch(case.kind, list(OBJECTIVES.values()), w, x, y)
                )(x, y)
                losses = case.loss_scale * losses
                losses = losses.at[0].add(jnp.where(at(0), case.fault, 0))
                return losses * jnp.where(at(1), case.fault, 1)

            loss, grads = jax.value_and_grad(lambda p: value_fn(p).mean())(params)
            first = jnp.arange(DIMENSIONS) == 0
            hit = at(3) | (at(2) & first)
            places = iter(jnp.split(hit, np.cumsum([leaf.size for leaf in leaves])))
            grads = jax.tree.map(
                lambda g: jnp.where(next(places).reshape(g.shape), case.fault, g).astype(g.dtype),
                grads,
            )
            updates, state = tx.update(
                grads, state, params, value=loss, grad=grads, value_fn=value_fn
            )
            sound = jnp.isfinite(_vector(grads)).all()
            record = (_vector(params), loss, sound, metrics(state))
            return (optax.apply_updates(params, updates), state), record

        (last, _), records = jax.lax.scan(step, (params, tx.init(params)), jnp.arange(STEPS))
        return _vector(last), records

    compiled = jax.jit(train)

    def run(case: Case) -> Trace:
        last, (params, *rest) = jax.device_get(compiled(_as_arrays(case)))
        return Trace(np.vstack([params, last]), *rest)

    return run


def _as_arrays(case: Case) -> Case:
    floats = {"loss_scale", "scale", "fault"}
    return Case(
        *(
            np.float32(value) if name in floats else np.int32(value)
            for name, value in case._asdict().items()
        )
    )


@st.composite
def cases(draw, tree: str, kinds=KINDS, faulty=None) -> Case:
    """Any case, or one of the kinds given, with or without a fault."""

    def exponents(tame: bool, most: float, mild: float) -> st.SearchStrategy[float]:
        largest = mild if tame else most
        return st.floats(-largest, largest)

    has_fault = draw(st.booleans()) if faulty is None else faulty
    tame = kinds == TAME
    begin = draw(st.integers(0, 14))
    return Case(
        seed=draw(st.integers(0, 2**20)),
        kind=KINDS.index(draw(st.sampled_from(kinds))),
        loss_scale=10.0 ** draw(exponents(tame, 30, 2)),
        scale=10.0 ** draw(exponents(tame, 3 if tree in NARROW else 30, 1)),
        duplicates=draw(st.booleans()),
        fault=draw(st.sampled_from([np.nan, np.inf, -np.inf])) if has_fault else 0.0,
        site=draw(st.integers(0, len(SITES) - 1)),
        begin=begin,
        end=draw(st.integers(begin + 1, 16)),
    )
