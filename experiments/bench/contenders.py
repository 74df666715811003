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
from .cases import Case

PyTree = Any
Carry = tuple[PyTree, PyTree, jax.Array]  # parameters, state, and something read off the state
Step = Callable[[Carry, PyTree], Carry]
Make = Callable[[Case], tuple[Callable[[PyTree], PyTree], Step]]  # state of parameters, and a step


def _in_a_loop(
    tx: optax.GradientTransformation,
    give: tuple[str, ...] = (),
    read: Callable[[PyTree], Any] | None = None,
) -> Make:
    """The loop of the README, with `value=` or `grad=` where they are to be given."""
    transformation = optax.with_extra_args_support(tx)

    def make(case: Case):
        def step(carry: Carry, batch: PyTree) -> Carry:
            params, state, known = carry

            def value_fn(p: PyTree) -> jax.Array:
                return case.losses(p, batch)

            value, grads = jax.value_and_grad(lambda p: jnp.mean(value_fn(p)))(params)
            extras = {"value": value, "grad": grads}
            updates, state = transformation.update(
                grads, state, params, value_fn=value_fn, **{name: extras[name] for name in give}
            )
            if read is not None:
                known = read(state)
            return optax.apply_updates(params, updates), state, known

        return transformation.init, step

    return make


def _arithmetic(tx: optax.GradientTransformation) -> Make:
    """The update alone: of a gradient that is there, with a loss that costs nothing."""
    transformation = optax.with_extra_args_support(tx)

    def make(case: Case):
        def step(carry: Carry, batch: PyTree) -> Carry:
            params, state, known = carry
            # What depends on the parameters is computed at every step, and no compiler fuses what
            # comes out of a branch with what follows: it is written once, as a gradient is.
            grads = jax.lax.cond(
                known < 1,
                lambda: jax.tree.map(lambda p: 0.1 * p + 0.01, params),
                lambda: params,
            )
            examples = jax.tree.leaves(batch)[0].shape[0]

            def value_fn(p: PyTree) -> jax.Array:
                return jnp.ones(examples) * jax.tree.leaves(p)[0].reshape(-1)[0]

            updates, state = transformation.update(grads, state, params, value_fn=value_fn)
            return optax.apply_updates(params, updates), state, known

        return transformation.init, step

    return make


def _loss_of_one(case: Case) -> Callable[[PyTree, PyTree], jax.Array]:
    def loss(params: PyTree, example: PyTree) -> jax.Array:
        return case.losses(params, jax.tree.map(lambda leaf: leaf[None], example))[0]

    return loss


def _exact(chunk_size: int | None) -> Make:
    """Meka with the statistics of every example, so many at once."""
    tx = meka(statistics="exact")

    def make(case: Case):
        def step(carry: Carry, batch: PyTree) -> Carry:
            params, state, known = carry
            value_fn = per_example(_loss_of_one(case), batch, chunk_size=chunk_size)
            grads = jax.grad(lambda p: jnp.mean(case.losses(p, batch)))(params)
            updates, state = tx.update(grads, state, params, value_fn=value_fn)
            return optax.apply_updates(params, updates), state, known

        return tx.init, step

    return make


def _naive(case: Case):
    """Every example's gradient and Hessian-vector product, and their variances; no step."""

    def step(carry: Carry, batch: PyTree) -> Carry:
        params, state, _ = carry
        direction = jax.tree.map(jnp.ones_like, params)
        loss = _loss_of_one(case)

        def observe(example: PyTree) -> PyTree:
            return jax.jvp(jax.grad(lambda p: loss(p, example)), (params,), (direction,))

        variances = jax.tree.map(lambda x: jnp.sum(jnp.var(x, axis=0)), jax.vmap(observe)(batch))
        total = jnp.stack(jax.tree.leaves(variances)).sum()
        # The next step depends on this one, by nothing.
        return jax.tree.map(lambda p: p + 1e-30 * total, params), state, total

    return lambda params: (), step


def _scalar(tx: optax.GradientTransformation, argument: str, value_too: bool = False) -> Make:
    """The loop of optimizers that call the loss, or its gradient, themselves."""
    transformation = optax.with_extra_args_support(tx)

    def make(case: Case):
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

        return transformation.init, step

    return make


def _read(state: PyTree) -> jax.Array:
    known = metrics(state)
    return jnp.stack([jnp.float32(known[name]) for name in sorted(known)]).sum()


_LINE_SEARCH = optax.scale_by_backtracking_linesearch(max_backtracking_steps=10)

_DIRECTIONS = {
    "adam": optax.scale_by_adam(),
    "momentum": optax.trace(decay=0.9),
    "lion": optax.scale_by_lion(),
    # Muon itself is for matrices; its optimizer has Adam for the rest.
    "muon": optax.chain(optax.contrib.muon(1.0), optax.scale(-1.0)),
}

REFERENCE = "adam"
_CONTENDERS: dict[str, Make] = {
    REFERENCE: _in_a_loop(optax.adam(1e-3)),
    "sgd": _in_a_loop(optax.sgd(1e-2)),
    "adameka": _in_a_loop(adameka()),
    "adameka, averaged": _in_a_loop(optax.chain(adameka(), average_iterates())),
    "adameka, metrics read": _in_a_loop(adameka(), read=_read),
    "adameka, value given": _in_a_loop(adameka(), give=("value",)),
    "adameka, measured at every step": _in_a_loop(adameka(curvature_interval=1)),
    **{
        f"{name} + rule, grad given": _in_a_loop(
            optax.chain(direction, scale_by_expected_improvement()), give=("grad",)
        )
        for name, direction in _DIRECTIONS.items()
    },
    "meka": _in_a_loop(meka()),
    "meka, exact": _exact(None),
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
    "adam, update alone": _arithmetic(optax.adam(1e-3)),
    "adameka, update alone": _arithmetic(adameka()),
    "vmap(jvp(grad)), no step": _naive,
}
_IN_CHUNKS = "meka, exact, chunks of "


def contender(name: str) -> Make:
    """Look up who is called so."""
    if name.startswith(_IN_CHUNKS):
        return _exact(int(name.removeprefix(_IN_CHUNKS)))
    return _CONTENDERS[name]
