"""Training steps by name: an optimizer, and what its `update` is given with the gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ...curvature import per_example
from ...optimizers import average_iterates, meka, metrics
from ..registry import OPTIMIZERS
from .workloads import PyTree, Workload

Carry = tuple[PyTree, PyTree, jax.Array]  # parameters, state, and a number read off the state
# From workload, batch and carry: the gradient, and the other arguments of `update`.
Arguments = Callable[[Workload, PyTree, Carry], tuple[PyTree, dict[str, Any]]]


class Step(NamedTuple):
    """A way to train: the optimizer, its arguments, and what to read off its state each time."""

    tx: optax.GradientTransformation
    arguments: Arguments
    read: Callable[[PyTree], jax.Array] | None = None

    def start(self, workload: Workload) -> Carry:
        """What the first step begins with."""
        params = workload.init(jax.random.key(0))
        return params, self.tx.init(params), jnp.zeros(())

    def make(self, workload: Workload, carry: Carry, batch: PyTree) -> Carry:
        """Make one step."""
        params, state, number = carry
        grads, arguments = self.arguments(workload, batch, carry)
        tx = optax.with_extra_args_support(self.tx)
        updates, state = tx.update(grads, state, params, **arguments)
        if self.read is not None:
            number = self.read(state)
        return optax.apply_updates(params, updates), state, number


def _given(chunk_size: int | None = None, **what: str) -> Arguments:
    """Arguments by name, each of those available."""

    def arguments(workload: Workload, batch: PyTree, carry: Carry) -> tuple[PyTree, Any]:
        def loss(p: PyTree) -> jax.Array:
            return jnp.mean(workload.losses(p, batch))

        value, grad = jax.value_and_grad(loss)(carry[0])
        available = {
            "value": value,
            "grad": grad,
            "losses": lambda p: workload.losses(p, batch),
            "losses of known examples": per_example(workload.loss, batch, chunk_size=chunk_size),
            "mean": loss,
            "gradient of the mean": lambda p, i: jax.grad(loss)(p),
        }
        return grad, {name: available[key] for name, key in what.items()}

    return arguments


def _update_alone(workload: Workload, batch: PyTree, carry: Carry) -> tuple[PyTree, Any]:
    """A gradient that is there already, and a loss that costs nothing."""
    params, _, number = carry
    # The gradient depends on the parameters, or the compiler computes it once for all steps; and
    # it comes out of a branch, or the compiler fuses it with what reads it.
    grads = jax.lax.cond(
        number < 1, lambda: jax.tree.map(lambda p: 0.1 * p + 0.01, params), lambda: params
    )
    ones = jnp.ones(batch["y"].shape[0])
    return grads, {"value_fn": lambda p: ones * jax.tree.leaves(p)[0].reshape(-1)[0]}


def _statistics_alone(workload: Workload, batch: PyTree, carry: Carry) -> tuple[PyTree, Any]:
    """Variances of every example's gradient and Hessian-vector product, all in memory at once."""
    params = carry[0]
    direction = jax.tree.map(jnp.ones_like, params)

    def observe(example: PyTree) -> PyTree:
        return jax.jvp(jax.grad(lambda p: workload.loss(p, example)), (params,), (direction,))

    variances = jax.tree.map(lambda x: jnp.sum(jnp.var(x, axis=0)), jax.vmap(observe)(batch))
    # Something has to depend on them, or they are not computed; it changes no parameter.
    total = 1e-30 * optax.tree.sum(variances)
    return jax.tree.map(lambda p: jnp.full_like(p, total), params), {}


def _sum_of_metrics(state: PyTree) -> jax.Array:
    known = metrics(state)
    return jnp.stack([jnp.float32(known[name]) for name in sorted(known)]).sum()


def _registered(name: str) -> optax.GradientTransformationExtraArgs:
    return OPTIMIZERS[name].build({}, 1)


_LOSSES = _given(value_fn="losses")
_SAM = optax.contrib.sam(
    optax.adam(1e-3), optax.chain(optax.contrib.normalize(), optax.sgd(0.05)), opaque_mode=True
)
_LINE_SEARCH = optax.chain(
    optax.sgd(1.0), optax.scale_by_backtracking_linesearch(max_backtracking_steps=10)
)
_ADAMEKA = _registered("adameka")

REFERENCE = "adam"
TRAINING = {
    # The registry's have a schedule, which costs something: no reference to compare with.
    REFERENCE: Step(optax.adam(1e-3), _LOSSES),
    "sgd": Step(optax.sgd(1e-2), _LOSSES),
    "adameka": Step(_ADAMEKA, _LOSSES),
    "meka": Step(_registered("meka"), _LOSSES),
    "adameka, averaged": Step(optax.chain(_ADAMEKA, average_iterates()), _LOSSES),
    "adameka, metrics read": Step(_ADAMEKA, _LOSSES, _sum_of_metrics),
    "adameka, value given": Step(_ADAMEKA, _given(value_fn="losses", value="value")),
    "adameka, measured at every step": Step(_registered("adameka-interval-1"), _LOSSES),
    **{
        f"{name}, grad given": Step(_registered(name), _given(value_fn="losses", grad="grad"))
        for name in ("ei-adam", "ei-momentum", "ei-lion", "ei-muon")
    },
    "sophia": Step(optax.contrib.sophia(1e-3), _given(obj_fn="mean")),
    "sam": Step(_SAM, _given(grad_fn="gradient of the mean")),
    "line search": Step(_LINE_SEARCH, _given(value_fn="mean", value="value", grad="grad")),
}
_PARTLY = {
    "adam, update alone": Step(optax.adam(1e-3), _update_alone),
    "adameka, update alone": Step(_ADAMEKA, _update_alone),
    "vmap(jvp(grad)), no step": Step(optax.identity(), _statistics_alone),
}
_EXACT = "meka, exact"


def find(name: str) -> Step:
    """The step of that name; `meka, exact, chunks of N` for any N."""
    if not name.startswith(_EXACT):
        return (TRAINING | _PARTLY)[name]
    chunk_size = None if name == _EXACT else int(name.removeprefix(f"{_EXACT}, chunks of "))
    given = _given(chunk_size, value_fn="losses of known examples")
    return Step(meka(statistics="exact"), given)
