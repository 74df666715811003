"""The structures a covariance may have, and how a diagonal is reduced to each.

| name       | covariance                         | stored as                         |
|------------|------------------------------------|-----------------------------------|
| `scalar`   | p·I, p = tr V / D                  | one scalar                        |
| `per_leaf` | p_l·I on each leaf l of the params | a tree of scalars, as the params  |
| `diagonal` | diag(v)                            | a tree of arrays, as the params   |

All three are prefixes of the parameters, so one set of formulas serves them (`_tree.py`).
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from ._tree import PyTree, size, zeros_like

Covariance = Literal["scalar", "per_leaf", "diagonal"]
COVARIANCES: tuple[str, ...] = get_args(Covariance)


def check_covariance(covariance: str) -> None:
    """Raise a `ValueError` that lists the structures if `covariance` is none of them."""
    if covariance not in COVARIANCES:
        raise ValueError(
            f"mekax: covariance must be one of {', '.join(map(repr, COVARIANCES))}, "
            f"got {covariance!r}. Pass one of these names."
        )


def reduce_diagonal(diagonal: PyTree, covariance: Covariance) -> PyTree:
    """Reduce elementwise variances to a covariance structure that keeps the trace.

    Args:
      diagonal: tree of arrays, the diagonal of a covariance matrix, in loss² / parameter².
      covariance: `"scalar"`, `"per_leaf"` or `"diagonal"`.

    Returns:
      The mean over all entries (a scalar), the mean over each leaf, or `diagonal` itself.

    Example:
      >>> import jax.numpy as jnp
      >>> diagonal = {"w": jnp.array([1.0, 3.0]), "b": jnp.array(5.0)}
      >>> float(reduce_diagonal(diagonal, "scalar"))
      3.0
      >>> float(reduce_diagonal(diagonal, "per_leaf")["w"])
      2.0
    """
    if covariance == "diagonal":
        return diagonal
    if covariance == "per_leaf":
        return jax.tree.map(jnp.mean, diagonal)
    total = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(diagonal))
    return jnp.asarray(total) / size(diagonal)


def zero_variance(params: PyTree, covariance: Covariance) -> PyTree:
    """Build the zero variance of the given structure, in float32 or wider."""
    if covariance == "scalar":
        leaves = jax.tree.leaves(params)
        return jnp.zeros((), jnp.result_type(jnp.float32, *map(jnp.result_type, leaves)))
    zeros = zeros_like(params, wide=True)
    return reduce_diagonal(zeros, covariance)
