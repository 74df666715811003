from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..curvature import PerExample, ValueFn
from ..curvature._tree import PyTree, broadcast


def masked(
    tx: optax.GradientTransformationExtraArgs, mask: PyTree | None
) -> optax.GradientTransformationExtraArgs:
    """Optimize only the leaves where `mask` is True, and hold the others at their values.

    The inner transformation sees the trainable leaves alone (None in place of the others) and a
    `value_fn` of these, so the result equals optimizing the subtree. `optax.masked` cannot do
    this: it would hand `value_fn` a mutilated tree.

    Args:
      tx: a transformation that takes `value_fn`.
      mask: a prefix of the parameters with boolean leaves, or a function from parameters to
        one, or None for no mask.

    Returns:
      A transformation on the full parameters; updates of frozen leaves are 0.
    """
    if mask is None:
        return tx

    def split(tree: PyTree, params: PyTree) -> PyTree:
        given = mask(params) if callable(mask) else mask
        try:
            chosen = broadcast(given, params)
        except ValueError as error:
            raise ValueError(
                "mekax: expected mask to be True or False for leaves or whole branches of params, "
                f"got {jax.tree.structure(given)} for params of {jax.tree.structure(params)}. Give "
                "it the branches of params, or build it with jax.tree.map(…, params)."
            ) from error
        return jax.tree.map(lambda keep, leaf: leaf if keep else None, chosen, tree)

    def merge(trainable: PyTree, full: PyTree) -> PyTree:
        return jax.tree.map(
            lambda new, old: old if new is None else new, trainable, full, is_leaf=_is_none
        )

    def restrict(value_fn: ValueFn, params: PyTree) -> ValueFn:
        if isinstance(value_fn, PerExample):
            return PerExample(
                lambda p, example: value_fn.loss_fn(merge(p, params), example),
                value_fn.batch,
                value_fn.chunk_size,
            )
        return lambda p: value_fn(merge(p, params))

    def init_fn(params: PyTree) -> PyTree:
        # Optax probes the structure of states with a leafless placeholder, which no mask fits.
        return tx.init(split(params, params) if jax.tree.leaves(params) else params)

    def update_fn(updates, state, params=None, *, value_fn=None, grad=None, **extra_args):
        if params is None or value_fn is None:
            return tx.update(updates, state, params, value_fn=value_fn, **extra_args)
        if grad is not None:
            extra_args["grad"] = split(grad, params)
        chosen, state = tx.update(
            split(updates, params),
            state,
            split(params, params),
            value_fn=restrict(value_fn, params),
            **extra_args,
        )
        return merge(chosen, jax.tree.map(jnp.zeros_like, updates)), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _is_none(leaf: Any) -> bool:
    return leaf is None
