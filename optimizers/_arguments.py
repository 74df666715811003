from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..curvature import ValueFn
from ..curvature._validation import check_params
from ._trust_region import TrustRegion


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
    check_params(params)
    given, expected = _shapes(updates), _shapes(params)
    if given != expected:
        leaf = next(key for key in (*expected, *given) if given.get(key) != expected.get(key))
        raise ValueError(
            f"mekax: {name} expected a gradient with the leaves of params, "
            f"got {_described(given, leaf)} at {leaf or 'the root'} where params has "
            f"{_described(expected, leaf)}. Pass what jax.grad returns for these params."
        )


def require_consistency(name: str, mismatch: jax.Array, tolerance: float) -> None:
    """Raise, where numbers are known, if the gradient's slope is not that of `value_fn`."""
    if isinstance(mismatch, jax.core.Tracer) or not mismatch > tolerance:
        return
    raise ValueError(
        f"mekax: {name} expected the gradient of the mean of value_fn's losses, got one whose "
        f"slope along the last step differs by {100 * float(mismatch):.0f} %. Likely causes: the "
        "gradient is of the sum and not of the mean; it was clipped, scaled or penalized (pass the "
        "raw one as grad=); it is of another batch, key or dropout mask; its sign is turned. "
        'Under jax.jit the same shows in metrics(state)["gradient_mismatch"].'
    )


def resolve_trust_region(
    trust_region: TrustRegion | None, default: Callable[[], TrustRegion]
) -> TrustRegion:
    """Return the trust region, the default for None, or raise an error that names the choices."""
    if trust_region is None:
        return default()
    if not isinstance(trust_region, TrustRegion):
        raise TypeError(
            f"mekax: expected trust_region to be a TrustRegion or None, got {trust_region!r}. Pass "
            "adaptive_trust_region() or newton_trust_region(), called."
        )
    return trust_region


def check_cap(max_step_size: Any) -> None:
    """Raise unless `max_step_size` is a positive number, an array, or None."""
    if callable(max_step_size) or isinstance(max_step_size, str):
        raise TypeError(
            f"mekax: expected max_step_size to be a number or None, got {max_step_size!r}. For a "
            "cap that changes, use optax.inject_hyperparams with a schedule."
        )
    if isinstance(max_step_size, int | float) and not max_step_size > 0:
        raise ValueError(
            f"mekax: expected max_step_size to be above 0, got {max_step_size!r}. Leave it out for "
            "steps without a cap."
        )


def check_interval(curvature_interval: Any) -> None:
    """Raise unless `curvature_interval` is a positive number of steps, or an array."""
    if isinstance(curvature_interval, int | float) and not curvature_interval >= 1:
        raise ValueError(
            f"mekax: expected curvature_interval to be at least 1, got {curvature_interval!r}. Pass "
            "the number of steps from one measurement of the curvature to the next."
        )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in leaves}


def _described(shapes: dict[str, tuple[int, ...]], leaf: str) -> str:
    return f"shape {shapes[leaf]}" if leaf in shapes else "no leaf"


def _masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)
