import jax
import jax.numpy as jnp

from ..curvature._trees import PyTree, dot, widen


@jax.jit  # so that the branch is not compiled anew where the loop around it is not compiled
def norm(tree: PyTree) -> jax.Array:
    """Euclidean norm of a tree, whatever its scale."""
    square = dot(tree, tree)
    # Squares that overflow, or underflow in part, take a second pass over the tree; hardly ever.
    limits = jnp.finfo(square.dtype)
    safe = (square > limits.tiny / limits.eps) & (square < limits.max)
    return jax.lax.cond(safe, lambda: jnp.sqrt(square), lambda: _norm_by_largest(tree))


def _norm_by_largest(tree: PyTree) -> jax.Array:
    """Euclidean norm by squares relative to the largest entry."""
    tree = widen(tree)
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in jax.tree.leaves(tree) if x.size]))
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    scaled = jax.tree.map(lambda x: x / scale, tree)
    return scale * jnp.sqrt(dot(scaled, scaled))


def norm_near(tree: PyTree, guess: jax.Array) -> jax.Array:
    """Euclidean norm of a tree by squares relative to a guess of it, in one pass; 0 is no guess."""
    scale = jnp.where(guess > 0, guess, 1)
    scaled = jax.tree.map(lambda x: x / scale, widen(tree))
    return scale * jnp.sqrt(dot(scaled, scaled))


def unit(tree: PyTree, length: jax.Array) -> PyTree:
    """Divide a tree by its norm `length`; zero stays zero."""
    safe = jnp.where(length > 0, length, 1)
    return jax.tree.map(lambda x: x / safe, widen(tree))
