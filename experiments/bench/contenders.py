"""Whose steps are timed.

Ours with their options, the optimizers that everybody knows, and peers that make extra passes
through the model as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ...curvature import per_example
from ...optimizers import (
    adameka,
    average_iterates,
    meka,
    metrics,
    scale_by_expected_improvement,
)
from ...optimizers._adameka import along_momentum
from ...optimizers._expected_improvement import step_rule
from .cases import Case

PyTree = Any
Carry = tuple[PyTree, PyTree, jax.Array]  # parameters, state, and something read off the state
Step = Callable[[Carry, PyTree], Carry]
CHUNK = 32  # examples at once of the exact statistics


def _in_a_loop(
    tx: optax.GradientTransformation, read: Callable[[PyTree], Any] | None = None
) -> Callable[[Case], tuple[Any, Step]]:
    """The loop of every user: one gradient, one update, with all arguments it may ask for."""
    transformation = optax.with_extra_args_support(tx)

    def make(case: Case) -> tuple[Any, Step]:
        def step(carry: Carry, batch: PyTree) -> Carry:
            params, state, known = carry

            def value_fn(p: PyTree) -> jax.Array:
                return case.losses(p, batch)

            value, grads = jax.value_and_grad(lambda p: jnp.mean(value_fn(p)))(params)
            updates, state = transformation.update(
                grads, state, params, value_fn=value_fn, value=value
            )
            if read is not None:
                known = read(state)
            return optax.apply_updates(params, updates), state, known

        return transformation, step

    return make


def _exact(case: Case) -> tuple[Any, Step]:
    """Meka with the statistics of every example, so many at once."""
    tx = meka(statistics="exact")

    def step(carry: Carry, batch: PyTree) -> Carry:
        params, state, known = carry

        def loss(p: PyTree, example: PyTree) -> jax.Array:
            return case.losses(p, jax.tree.map(lambda leaf: leaf[None], example))[0]

        value_fn = per_example(loss, batch, chunk_size=CHUNK)
        grads = jax.grad(lambda p: jnp.mean(case.losses(p, batch)))(params)
        updates, state = tx.update(grads, state, params, value_fn=value_fn)
        return optax.apply_updates(params, updates), state, known

    return tx, step


def _scalar(
    tx: optax.GradientTransformation, argument: str, value_too: bool = False
) -> Callable[[Case], tuple[Any, Step]]:
    """The loop of optimizers that call the loss, or its gradient, themselves."""
    transformation = optax.with_extra_args_support(tx)

    def make(case: Case) -> tuple[Any, Step]:
        def step(carry: Carry, batch: PyTree) -> Carry:
            params, state, known = carry

            def loss(p: PyTree) -> jax.Array:
                return jnp.mean(case.losses(p, batch))

            value, grads = jax.value_and_grad(loss)(params)
            given = {argument: (lambda p, i: jax.grad(loss)(p)) if argument == "grad_fn" else loss}
            if value_too:
                given |= {"value": value, "grad": grads}
            updates, state = transformation.update(grads, state, params, **given)
            return optax.apply_updates(params, updates), state, known

        return transformation, step

    return make


def _looking(every: int) -> optax.GradientTransformationExtraArgs:
    return along_momentum(step_rule("expected_improvement", True, None, 0.99), look_every=every)


def _read(state: PyTree) -> jax.Array:
    known = metrics(state)
    return jnp.stack([jnp.float32(known[name]) for name in sorted(known)]).sum()


_LINE_SEARCH = optax.scale_by_backtracking_linesearch(max_backtracking_steps=10)

CONTENDERS: dict[str, Callable[[Case], tuple[Any, Step]]] = {
    "adam": _in_a_loop(optax.adam(1e-3)),
    "sgd": _in_a_loop(optax.sgd(1e-2)),
    "adameka": _in_a_loop(adameka()),
    "adameka, averaged": _in_a_loop(optax.chain(adameka(), average_iterates())),
    "adameka, metrics read": _in_a_loop(adameka(), _read),
    "adameka, looking always": _in_a_loop(_looking(1)),
    "adam + rule": _in_a_loop(optax.chain(optax.scale_by_adam(), scale_by_expected_improvement())),
    "meka": _in_a_loop(meka()),
    "meka, exact statistics": _exact,
    "sophia": _scalar(optax.contrib.sophia(1e-3), "obj_fn"),
    "sam": _scalar(
        optax.contrib.sam(
            optax.adam(1e-3),
            optax.chain(optax.contrib.normalize(), optax.sgd(0.05)),
            opaque_mode=True,
        ),
        "grad_fn",
    ),
    "line search": _scalar(optax.chain(optax.sgd(1.0), _LINE_SEARCH), "value_fn", value_too=True),
}
