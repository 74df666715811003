"""From the loss of one example to the losses of a batch."""

from collections.abc import Callable

import jax

from .problem import PyTree


def batched(loss: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Make a problem's `losses` of its `loss`.

    Args:
      loss: `(params, example, key) -> scalar`.

    Returns:
      `(params, batch, key) -> (n,)`, in which every example has a key of its own.
    """

    def losses(params: PyTree, batch: PyTree, key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, jax.tree.leaves(batch)[0].shape[0])
        return jax.vmap(loss, (None, 0, 0))(params, batch, keys)

    return losses
