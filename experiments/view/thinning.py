import numpy as np

POINTS = 1_500  # of a line, at most


def thin(values: np.ndarray, points: int = POINTS) -> np.ndarray:
    """Which values of a long line to draw so that no spike is lost.

    Of every few values in a row the smallest, the middle one and the largest are kept, so that
    every point that is drawn was recorded. Values that are not finite count as the largest.

    Args:
      values: shape (n,).
      points: how many may be kept, at least 3.

    Returns:
      Indices, increasing, shape (at most `points`,); all of them if there are no more.

    Example:
      >>> thin(np.array([0.0, 1.0, 2.0, 9.0, 4.0, 5.0, 6.0, 7.0]), points=6).tolist()
      [0, 1, 3, 4, 5, 7]
    """
    if values.size <= points:
        return np.arange(values.size)
    group = -(-values.size // (points // 3))
    kept = []
    for start in range(0, values.size, group):
        order = start + np.argsort(values[start : start + group], kind="stable")
        kept += [order[0], order[(order.size - 1) // 2], order[-1]]
    return np.unique(kept)
