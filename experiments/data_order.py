"""Which examples each step sees."""

from functools import lru_cache

import numpy as np


def batches(seed: int, start: int, count: int, examples: int, batch_size: int) -> np.ndarray:
    """Examples of consecutive steps; the same seed gives every optimizer the same ones.

    Each epoch goes through the examples in a new order and leaves out an incomplete last batch.

    Returns:
      Integers, shape (count, batch_size).
    """
    per_epoch = examples // batch_size
    rows = np.empty((count, batch_size), np.int32)
    for row, step in enumerate(range(start, start + count)):
        epoch, index = divmod(step, per_epoch)
        order = _order(seed, epoch, examples)
        rows[row] = order[index * batch_size : (index + 1) * batch_size]
    return rows


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, examples: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(examples)
