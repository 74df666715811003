from collections.abc import Callable
from typing import Any

import jax

from ..curvature import ValueFn


def nnx_value_fn(
    model: Any, loss_fn: Callable[..., jax.Array], *args: Any, wrt: Any = None
) -> ValueFn:
    """Build the `value_fn` of a Flax NNX model: what `nnx.Optimizer.update` hands on.

        p ↦ loss_fn(model with its parameters set to p, *args)

    Everything else of the model, dropout counters and running statistics included, is taken as it
    is now, at the call of `nnx_value_fn`: build it before the gradient is taken and all of one
    step see the same dropout masks. Whatever `loss_fn` changes in the model while the optimizer
    measures is forgotten; what it changes while the gradient is taken stays, as always in NNX.

    Args:
      model: an `nnx.Module`; it is not modified.
      loss_fn: `(model, *args) -> losses`, shape (batch,), or a scalar.
      *args: further arguments of `loss_fn`, such as the batch.
      wrt: filter of the variables to train, the one given to `nnx.Optimizer`; None is `nnx.Param`.

    Returns:
      A function from an `nnx.State` of the parameters, of variables or of arrays, to losses.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from mekax.optimizers import meka, metrics, nnx_value_fn
      >>> model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
      >>> optimizer = nnx.Optimizer(model, meka(), wrt=nnx.Param)
      >>> x, y = jnp.eye(2), jnp.array([1.0, -1.0])
      >>> losses = lambda model, x, y: (model(x)[:, 0] - y) ** 2
      >>> for _ in range(20):
      ...     value_fn = nnx_value_fn(model, losses, x, y)
      ...     grads = nnx.grad(lambda model: losses(model, x, y).mean())(model)
      ...     updates = optimizer.update(model, grads, value_fn=value_fn)
      >>> bool(losses(model, x, y).mean() < 1e-3)
      True
      >>> float(metrics(nnx.as_pure(optimizer.opt_state))["num_rejected"])
      0.0
    """
    from flax import nnx  # the library itself does without Flax

    graph, _, rest = nnx.split(model, nnx.Param if wrt is None else wrt, ...)
    leaves, structure = jax.tree.flatten(rest)

    def value_fn(params: Any) -> jax.Array:
        # New variables at every call: those of the caller may not change under a transformation.
        return loss_fn(nnx.merge(graph, params, structure.unflatten(leaves)), *args)

    return value_fn
