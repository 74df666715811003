"""Arithmetic on pytrees: inner products, quadratic forms, and precision of the accumulators.

A *prefix* is a pytree whose leaves stand for whole subtrees of another one: a single scalar is a
prefix of every tree. Variances are stored as prefixes of the parameters (see `_covariance.py`), so
the functions here take them without caring which structure they have.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any


def accumulator_dtype(*arrays: jax.typing.ArrayLike) -> jnp.dtype:
    """Dtype in which sums over `arrays` are kept: at least float32, wider if they are."""
    return jnp.result_type(jnp.float32, *arrays)


def widen(tree: PyTree) -> PyTree:
    """Cast every leaf to its accumulator dtype: bfloat16 and float16 become float32."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, accumulator_dtype(leaf)), tree)


def zeros_like(tree: PyTree, wide: bool = False) -> PyTree:
    """Build zeros of the shapes, dtypes and shardings of a tree of arrays or of their shapes.

    Args:
      tree: arrays, numbers, or `jax.ShapeDtypeStruct`s.
      wide: whether to give every leaf its accumulator dtype instead of its own.
    """
    # The dtype is stated because it would be weak for Python numbers; the sharding is kept because
    # a state on one device would neither fit there nor keep its form over a step.
    return jax.tree.map(
        lambda leaf: jnp.zeros_like(
            leaf, dtype=accumulator_dtype(leaf) if wide else jnp.result_type(leaf)
        ),
        tree,
    )


def cast_like(tree: PyTree, like: PyTree) -> PyTree:
    """Cast every leaf of `tree` to the dtype of the matching leaf of `like`."""
    return jax.tree.map(lambda leaf, other: jnp.asarray(leaf, jnp.result_type(other)), tree, like)


def size(tree: PyTree) -> int:
    """Count the scalar entries of a tree, the dimension D."""
    return sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree))


def dot(left: PyTree, right: PyTree) -> jax.Array:
    """Inner product of two trees of one structure, accumulated in float32 or wider."""
    products = jax.tree.map(lambda a, b: jnp.sum(widen(a) * widen(b)), left, right)
    return sum(jax.tree.leaves(products), start=jnp.zeros((), jnp.float32))


def broadcast(prefix: PyTree, tree: PyTree) -> PyTree:
    """Repeat the leaves of `prefix` until it has the structure of `tree`."""
    # What jax.tree.broadcast does, which the oldest supported jax does not have.
    return jax.tree.map(lambda leaf, part: jax.tree.map(lambda _: leaf, part), prefix, tree)


def quadratic_form(variance: PyTree, direction: PyTree) -> jax.Array:
    """Quadratic form d·V d of a variance V stored as a prefix of the direction d."""
    return dot(
        jax.tree.map(lambda v, d: v * widen(d), broadcast(variance, direction), direction),
        direction,
    )
