from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..curvature import ValueFn
from ..curvature._validation import per_example_losses


def require_value_fn(name: str, params: Any, value_fn: ValueFn | None) -> ValueFn:
    """Return `value_fn`, or raise an error that shows the line to write if it is missing."""
    missing = [
        label for label, value in (("params", params), ("value_fn", value_fn)) if value is None
    ]
    if missing:
        raise ValueError(
            f"mekax: {name} expected update(updates, state, params, value_fn=value_fn), got no "
            f"{' and no '.join(missing)}. Write, for example:\n"
            "    value_fn = lambda p: losses(p, batch)  # params -> per-example losses, (batch,)\n"
            "    updates, state = tx.update(grads, state, params, value_fn=value_fn)"
        )
    if value_fn is None or not callable(value_fn):
        raise TypeError(
            f"mekax: {name} expected value_fn to be a function from params to per-example losses, "
            f"got {type(value_fn).__name__}. Pass the function itself, not its value."
        )
    if any(isinstance(node, optax.MaskedNode) for node in jax.tree.leaves(params, is_leaf=_masked)):
        raise ValueError(
            f"mekax: {name} expected all parameters that value_fn needs, got params with masked "
            "leaves, as inside optax.masked or optax.partition. To hold some parameters fixed, "
            "pass mask= to meka or adameka, which shows value_fn the full parameters."
        )
    return value_fn


def require_gradient(name: str, updates: Any, params: Any) -> None:
    """Raise an error that names the leaf unless `updates` has the structure of `params`."""
    given, expected = _shapes(updates), _shapes(params)
    if given != expected:
        leaf = next(key for key in (*expected, *given) if given.get(key) != expected.get(key))
        raise ValueError(
            f"mekax: {name} expected a gradient with the leaves of params, "
            f"got {_described(given, leaf)} at {leaf or 'the root'} where params has "
            f"{_described(expected, leaf)}. Pass what jax.grad returns for these params."
        )


def require_shape(value_fn: ValueFn, losses: jax.Array) -> ValueFn:
    """Wrap `value_fn` so that it raises unless it returns as many losses as these."""

    def checked(params: Any) -> jax.Array:
        values = per_example_losses(value_fn)(params)
        if values.shape != losses.shape:
            raise ValueError(
                f"mekax: expected losses to be what value_fn returns, of shape {values.shape}, got "
                f"shape {losses.shape}. Pass the losses of all examples of the batch, not their "
                "mean: losses, grads = losses_and_grad(value_fn)(params)."
            )
        return values

    return checked


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in leaves}


def _described(shapes: dict[str, tuple[int, ...]], leaf: str) -> str:
    return f"shape {shapes[leaf]}" if leaf in shapes else "no leaf"


def _masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)
