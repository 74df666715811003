import jax
import jax.numpy as jnp

from ..curvature._trees import PyTree


def all_finite(tree: PyTree) -> jax.Array:
    """Whether every entry of every leaf is finite, a boolean scalar."""
    leaves = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(leaves))


def select(condition: jax.Array, if_true: PyTree, if_false: PyTree) -> PyTree:
    """Choose between two trees of one structure; unlike a blend, never mixes in a NaN."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), if_true, if_false)


def select_state(condition: jax.Array, new: PyTree, old: PyTree) -> PyTree:
    """Choose between a new and an old state, in the dtypes of the old one, which never change."""
    return jax.tree.map(lambda a, b: jnp.where(condition, jnp.asarray(a, b.dtype), b), new, old)
