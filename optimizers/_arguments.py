from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

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
    if _has_masked(params):
        try:
            jax.eval_shape(value_fn, params)
        except Exception as error:
            raise ValueError(
                f"mekax: {name} expected a value_fn that takes the parameters of its group alone, "
                "got one that fails on params with masked leaves, as inside optax.partition or "
                "optax.masked. Pass value_fn=close_over(value_fn, params), from mekax.optimizers, "
                "which fills them in; or hold parameters fixed by mask= of meka or adameka."
            ) from error
    return value_fn


def close_over(value_fn: ValueFn, params: Any) -> ValueFn:
    """Make a `value_fn` of all parameters one of those of a group, the others held at `params`.

        p ↦ value_fn(p with its masked leaves taken from params)

    `optax.partition` and `optax.masked` show a transformation the parameters of its own group, with
    `optax.MaskedNode` in place of all others.

    Args:
      value_fn: of all parameters.
      params: all parameters.

    Returns:
      A `value_fn` for `update` of the outer transformation.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from mekax.optimizers import adameka, close_over
      >>> groups = {"ours": adameka(), "sgd": optax.sgd(0.1)}
      >>> tx = optax.partition(groups, {"w": "ours", "b": "sgd"})
      >>> params = {"w": jnp.ones(2), "b": jnp.ones(())}
      >>> state = tx.init(params)
      >>> value_fn = lambda p: jnp.sum((p["w"] + p["b"]) ** 2)
      >>> grads = jax.grad(value_fn)(params)
      >>> updates, state = tx.update(grads, state, params, value_fn=close_over(value_fn, params))
      >>> bool(updates["w"][0] < 0), round(float(updates["b"]), 3)
      (True, -0.8)
    """

    def fill(group: Any) -> Any:
        return jax.tree.map(
            lambda mine, full: full if _masked(mine) else mine, group, params, is_leaf=_masked
        )

    return lambda group: value_fn(fill(group))


def of_group(grad: Any, updates: Any) -> Any:
    """The part of a gradient of all parameters that belongs to the group of `updates`."""
    if not _has_masked(updates) or _has_masked(grad):
        return grad
    return jax.tree.map(
        lambda update, g: update if _masked(update) else g, updates, grad, is_leaf=_masked
    )


def _has_masked(tree: Any) -> bool:
    return any(_masked(node) for node in jax.tree.leaves(tree, is_leaf=_masked))


def require_gradient(name: str, updates: Any, params: Any, complex_too: bool = False) -> None:
    """Raise an error that names the leaf unless `updates` has the structure of `params`."""
    check_params(params, complex_too)
    given, expected = _shapes(updates), _shapes(params)
    if given != expected:
        leaf = next(key for key in (*expected, *given) if given.get(key) != expected.get(key))
        raise ValueError(
            f"mekax: {name} expected a gradient with the leaves of params, "
            f"got {_described(given, leaf)} at {leaf or 'the root'} where params has "
            f"{_described(expected, leaf)}. Pass what jax.grad returns for these params; "
            "inside optax.flatten leave out grad=, and give value_fn the flat vector."
        )


def require_consistency(name: str, mismatch: jax.Array, tolerance: float) -> None:
    """Raise, where numbers are known, if the gradient's slope is not that of `value_fn`."""
    if isinstance(mismatch, Tracer) or not mismatch > tolerance:
        return
    raise ValueError(
        f"mekax: {name} expected the gradient of the mean of value_fn's losses, got one whose "
        f"slope along the direction differs by {100 * float(mismatch):.0f} %. Likely causes: the "
        "gradient is of the sum and not of the mean; it was clipped, scaled or penalized (pass the "
        "raw one as grad=); it is of another batch, key or dropout mask; its sign is turned (of "
        "complex parameters, pass the conjugate of what jax.grad returns). "
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
            f"mekax: expected curvature_interval to be at least 1, got {curvature_interval!r}. "
            "Pass the number of steps from one measurement of the curvature to the next."
        )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in leaves}


def _described(shapes: dict[str, tuple[int, ...]], leaf: str) -> str:
    return f"shape {shapes[leaf]}" if leaf in shapes else "no leaf"


def _masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)
