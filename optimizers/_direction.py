import jax
import jax.numpy as jnp

from ..curvature._trees import PyTree, dot, widen


def norm(tree: PyTree) -> jax.Array:
    """Euclidean norm of a tree, without overflow or underflow of the squares."""
    tree = widen(tree)
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in jax.tree.leaves(tree) if x.size]))
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    scaled = jax.tree.map(lambda x: x / scale, tree)
    return scale * jnp.sqrt(dot(scaled, scaled))


def unit(tree: PyTree, length: jax.Array) -> PyTree:
    """Divide a tree by its norm `length`; zero stays zero."""
    safe = jnp.where(length > 0, length, 1)
    return jax.tree.map(lambda x: x / safe, widen(tree))
