from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ._tree import PyTree


def check_per_example(
    losses: Callable[[PyTree, PyTree], jax.Array],
    params: PyTree,
    batch: PyTree,
    tolerance: float = 1e-3,
) -> None:
    """Raise unless the loss of every example is its own, whatever else is in the batch.

    Compares the losses of the whole batch with those of its halves. Batch normalization in train
    mode, contrastive losses and losses that are averaged before they are returned fail: for them
    the variance over examples is not that of independent draws, and every noise estimate is wrong.
    Call it once, on a real batch, before training; it is not for use under `jit`.

    Args:
      losses: `(params, batch) -> losses`, shape (n,).
      params: θ.
      batch: pytree of arrays with n ≥ 2 examples along the leading axis.
      tolerance: largest difference, relative to the mean magnitude of the losses.

    Raises:
      ValueError: if the halves disagree with the whole, or if there are fewer than two examples.

    Example:
      >>> import jax.numpy as jnp
      >>> batch = jnp.array([[1.0], [2.0], [4.0]])
      >>> check_per_example(lambda w, x: ((x - w) ** 2).sum(1), jnp.array([0.5]), batch)
      >>> check_per_example(lambda w, x: ((x - x.mean(0) - w) ** 2).sum(1), jnp.array([0.5]), batch)
      Traceback (most recent call last):
      ...
      ValueError: mekax: expected losses that each depend on one example alone, ...
    """
    count = jax.tree.leaves(batch)[0].shape[0]
    if count < 2:
        raise ValueError(
            f"mekax: expected a batch of at least two examples to compare, got {count}. "
            "Pass a real batch."
        )

    def part(start: int, stop: int) -> np.ndarray:
        piece = jax.tree.map(lambda x: x[start:stop], batch)
        return np.asarray(jnp.asarray(losses(params, piece), jnp.float32))

    whole = part(0, count)
    halves = [part(0, count // 2), part(count // 2, count)]
    shapes = [whole.shape, *(half.shape for half in halves)]
    expected = [(count,), (count // 2,), (count - count // 2,)]
    if shapes != expected:
        raise ValueError(
            f"mekax: expected one loss per example, shapes {expected} for a batch and its halves, "
            f"got {shapes}. Return the losses before they are averaged."
        )
    difference = np.max(np.abs(whole - np.concatenate(halves)))
    if not difference <= tolerance * np.mean(np.abs(whole)):
        raise ValueError(
            "mekax: expected losses that each depend on one example alone, but they change by up "
            f"to {difference:.3g} when the batch is split in half. Batch normalization in train "
            "mode does this: use GroupNorm or LayerNorm, or its running statistics."
        )
