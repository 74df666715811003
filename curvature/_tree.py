"""What `optax.tree` lacks: sums in float32 or wider, and prefixes.

A *prefix* is a pytree whose leaves stand for whole subtrees of another one: a single scalar is a
prefix of every tree. Variances are stored as prefixes of the parameters (see `_covariance.py`), so
the functions here take them without caring which structure they have.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any


def accumulator_dtype(*arrays: Any) -> jnp.dtype:
    """Dtype in which sums over `arrays` are kept: at least float32, wider if they are."""
    return jnp.result_type(jnp.float32, *map(jnp.result_type, arrays))


def real_dtype(*arrays: Any) -> jnp.dtype:
    """Dtype of a norm of `arrays`: that of their accumulator, real where they are complex."""
    return jnp.finfo(accumulator_dtype(*arrays)).dtype


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


def size(tree: PyTree) -> int:
    """Count the scalar entries of a tree, the dimension D."""
    return sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree))


@jax.jit  # one function in the program, however often it is called
def dot(left: PyTree, right: PyTree) -> jax.Array:
    """Real inner product of two trees of one structure, accumulated in float32 or wider."""

    # A sum of products and not `optax.tree.vdot`, whose operands XLA writes to memory first.
    def products(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.sum(jnp.real(jnp.conj(widen(a)) * widen(b)))

    terms = jax.tree.leaves(jax.tree.map(products, left, right))
    return functools.reduce(jnp.add, terms) if terms else jnp.zeros((), jnp.float32)


@jax.jit
def safe_sqrt(x: jax.Array) -> jax.Array:
    """Square root whose derivative at 0 is 0, so that no gradient through it is NaN."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


@jax.jit
def norm(tree: PyTree) -> jax.Array:
    """Euclidean norm of a tree, whatever its scale: squares are relative to the largest entry."""
    largest = [jnp.max(jnp.abs(widen(x))) for x in jax.tree.leaves(tree) if jnp.size(x)]
    if not largest:
        return jnp.zeros((), jnp.float32)
    most = jnp.max(jnp.stack(largest)) if len(largest) > 1 else largest[0]
    scale = jax.lax.stop_gradient(most)
    return scale * safe_sqrt(_square(tree, scale))


@jax.jit
def norm_near(tree: PyTree, guess: jax.Array) -> jax.Array:
    """Euclidean norm of a tree, in one pass where `guess` is of its order; 0 is no guess."""
    square = _square(tree, guess)
    # Squares that are lost to rounding, or too large, need their own scale.
    good = (square > float(jnp.finfo(square.dtype).tiny) ** 0.5) & jnp.isfinite(square)
    near = _divisor(guess) * safe_sqrt(square)
    return jax.lax.cond(good, lambda: near, lambda: norm(tree))


def _square(tree: PyTree, scale: jax.Array) -> jax.Array:
    """Squared norm of a tree divided by a scale."""
    scaled = unit(tree, scale)
    return dot(scaled, scaled)


def unit(tree: PyTree, length: jax.Array) -> PyTree:
    """Divide a tree by its norm `length`, of either sign; zero stays zero."""
    inverse = 1 / _divisor(length)  # a product for each entry, which costs a fraction of a division
    return jax.tree.map(lambda x: x * inverse, widen(tree))


def _divisor(length: jax.Array) -> jax.Array:
    """A length to divide by: 1 where there is none."""
    return jnp.where(jnp.abs(length) > float(jnp.finfo(length.dtype).tiny), length, 1.0)


def all_finite(tree: PyTree) -> jax.Array:
    """Whether every entry of every leaf is finite, a boolean scalar."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def finite_scalars(tree: PyTree) -> jax.Array:
    """Whether all of a tree of scalars are finite: x − x is 0 or NaN, and one sum tells of all."""
    return functools.reduce(jnp.add, [x - x for x in jax.tree.leaves(tree)]) == 0


def coarsest(tree: PyTree) -> float:
    """The largest relative rounding error of the dtypes of a tree."""
    return max(float(jnp.finfo(jnp.result_type(leaf)).eps) for leaf in jax.tree.leaves(tree))


def broadcast(prefix: PyTree, tree: PyTree) -> PyTree:
    """Repeat the leaves of `prefix` until it has the structure of `tree`."""
    # What jax.tree.broadcast does, which the oldest supported jax does not have.
    return jax.tree.map(lambda leaf, part: jax.tree.map(lambda _: leaf, part), prefix, tree)


def quadratic_form(variance: PyTree, direction: PyTree) -> jax.Array:
    """Quadratic form d·V d of a variance V stored as a prefix of the direction d.

    Args:
      variance: V: one scalar, a scalar per leaf, or a tree like `direction`.
      direction: d, a pytree of arrays.

    Returns:
      A scalar in float32 or wider.

    Example:
      >>> import jax.numpy as jnp
      >>> float(quadratic_form(jnp.array(2.0), {"w": jnp.array([1.0, 2.0])}))
      10.0
    """
    return dot(
        jax.tree.map(lambda v, d: v * widen(d), broadcast(variance, direction), direction),
        direction,
    )
