from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..curvature._tree import PyTree
from ._average import AverageState
from ._horizon import HorizonState


def eval_params(state: Any, params: PyTree) -> PyTree:
    """Parameters to evaluate at: the average kept in an optimizer state, if there is one.

    The step rule keeps two averages of the iterates, over about the last fifth and the last
    fortieth of them, and this is the point between both where the losses that were compared there
    are lowest: nearer to the long one where noise rules, to the short one where progress does.

    Args:
      state: optimizer state, a pytree, of a chain that holds the step rule or `average_iterates`
        anywhere.
      params: the current parameters.

    Returns:
      The average, in the dtypes of `params`; `params` themselves where no average is kept or
      nothing has been averaged yet.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from mekax.optimizers import eval_params
      >>> params = jnp.array([1.0])
      >>> eval_params(optax.sgd(0.1).init(params), params).tolist()
      [1.0]
    """

    def is_average(node: Any) -> bool:
        return isinstance(node, AverageState | HorizonState)

    for found in filter(is_average, jax.tree.leaves(state, is_leaf=is_average)):
        params = _read(found, params)
    return params


def _read(state: AverageState | HorizonState, params: PyTree) -> PyTree:
    def leaf(mean: Any, p: Any) -> Any:
        if _absent(mean):  # held by a mask, or trained by another group of `optax.partition`
            return p
        return jnp.where(state.count > 0, mean.astype(jnp.result_type(p)), p)

    return jax.tree.map(leaf, state.average, params, is_leaf=_absent)


def _absent(node: Any) -> bool:
    return node is None or isinstance(node, optax.MaskedNode)
