from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ._tree import PyTree


@dataclass(frozen=True)
class PerExample:
    """A `value_fn` that still knows its examples; made by `per_example`.

    Attributes:
      loss_fn: loss of one example, `(params, example) -> scalar`.
      batch: pytree of arrays with the examples along the leading axis.
      chunk_size: number of examples held in memory at once, or None for all of them.
    """

    loss_fn: Callable[[PyTree, PyTree], jax.Array]
    batch: PyTree
    chunk_size: int | None = None

    def __call__(self, params: PyTree) -> jax.Array:
        """Evaluate the losses at `params`, shape (n,)."""

        def loss(example: PyTree) -> jax.Array:
            return self.loss_fn(params, example)

        if self.chunk_size is None or self.chunk_size >= self.count:
            return jax.vmap(loss)(self.batch)
        # Rematerialized, so that reverse mode holds the activations of one chunk, not of all.
        return jax.lax.map(jax.checkpoint(loss), self.batch, batch_size=self.chunk_size)

    @property
    def count(self) -> int:
        """Number of examples n."""
        return jax.tree.leaves(self.batch)[0].shape[0]


def per_example(
    loss_fn: Callable[[PyTree, PyTree], jax.Array],
    batch: PyTree,
    chunk_size: int | None = None,
) -> PerExample:
    """Build a `value_fn` from the loss of one example: θ ↦ (ℓ(θ, ξ_1), …, ℓ(θ, ξ_n)).

    Randomness belongs to the examples: put a key per example into the batch, so that the
    gradient, the Hessian-vector product and the variances of one step see one objective.

    Args:
      loss_fn: `(params, example) -> scalar`, pure.
      batch: pytree of arrays, examples along the leading axis.
      chunk_size: evaluate this many examples at a time; memory is O(chunk_size), and the
        numbers are the same for every chunk size, up to rounding.

    Returns:
      A function from parameters to losses of shape (n,), which `exact` also accepts.

    Raises:
      ValueError: if the batch has no arrays, no examples, leading axes of different length, or
        if `chunk_size` is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> x, y = jnp.array([[1.0], [2.0]]), jnp.array([1.0, 1.0])
      >>> value_fn = per_example(lambda w, ex: (ex[0] @ w - ex[1]) ** 2, (x, y))
      >>> value_fn(jnp.array([1.0])).tolist()
      [0.0, 1.0]
    """
    counts = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(batch)}
    if len(counts) != 1 or counts <= {(), (0,)}:
        raise ValueError(
            "mekax: expected a batch of arrays that all have the same, non-zero number of "
            f"examples along their leading axis, got leading axes {sorted(counts)}. "
            "Stack the examples along axis 0 of every array."
        )
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(
            f"mekax: expected chunk_size to be a positive integer or None, got {chunk_size}. "
            "Pass the number of examples that fit in memory together."
        )
    return PerExample(loss_fn, batch, chunk_size)
