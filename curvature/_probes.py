import jax
import jax.numpy as jnp

from ._tree import PyTree

_BITS = 32


def rademacher_like(key: jax.Array, tree: PyTree) -> PyTree:
    """Draw independent ±1 entries in the shapes and dtypes of a tree.

    Each random word serves 32 entries: drawing a word for every sign would cost as much as the
    gradient of a small network.

    Args:
      key: PRNG key.
      tree: pytree of arrays with floating dtypes.

    Returns:
      A tree like the given one, each entry −1 or +1 with equal probability.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> signs = rademacher_like(jax.random.key(0), {"w": jnp.zeros((3, 20))})["w"]
      >>> bool(jnp.all(jnp.abs(signs) == 1)), signs.shape
      (True, (3, 20))
    """
    leaves, structure = jax.tree.flatten(tree)
    shifts = jnp.arange(_BITS, dtype=jnp.uint32)
    signs = []
    for k, leaf in zip(jax.random.split(key, len(leaves)), leaves, strict=True):
        words = jax.random.bits(k, (-(-leaf.size // _BITS),), jnp.uint32)
        bits = jnp.ravel((words[:, None] >> shifts[None]) & 1)[: leaf.size]
        signs.append(1 - 2 * jnp.reshape(bits, leaf.shape).astype(jnp.result_type(leaf)))
    return structure.unflatten(signs)
