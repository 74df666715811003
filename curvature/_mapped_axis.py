"""Batches split over devices: names of mapped axes, and what differentiation must know of them."""

from collections.abc import Hashable

import jax

from ._tree import PyTree

AxisName = Hashable | tuple[Hashable, ...]


def as_local(tree: PyTree, axis_name: AxisName | None) -> PyTree:
    """Mark replicated values as each device's own, so that derivatives are of its own examples.

    Where `jax.shard_map` tracks which values are replicated, the gradient with respect to a
    replicated value is summed over the devices without being asked; the statistics need each
    device's own, and merge them with the right weights themselves.
    """
    if axis_name is None or not hasattr(jax.lax, "pcast"):
        return tree
    axes = axis_name if isinstance(axis_name, tuple) else (axis_name,)

    def mark(leaf: jax.Array) -> jax.Array:
        missing = tuple(a for a in axes if a not in _varies_over(leaf))
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(mark, tree)


def _varies_over(leaf: jax.Array) -> frozenset:
    kind = jax.typeof(leaf)
    varying = getattr(getattr(kind, "manual_axis_type", None), "varying", frozenset())
    return frozenset(getattr(kind, "vma", varying))


def axis_size(axis_name: AxisName | None) -> int:
    """Count the devices along a mapped axis, 1 without an axis."""
    return 1 if axis_name is None else jax.lax.psum(1, axis_name)


def mean_over_axis(tree: PyTree, axis_name: AxisName | None) -> PyTree:
    """Average over the devices along a mapped axis; without an axis, nothing happens."""
    if axis_name is None:
        return tree
    return jax.tree.map(lambda leaf: jax.lax.pmean(leaf, axis_name), tree)
