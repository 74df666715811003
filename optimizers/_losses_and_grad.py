from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..curvature import ValueFn
from ..curvature._validation import per_example_losses

PyTree = Any


def losses_and_grad(value_fn: ValueFn) -> Callable[[PyTree], tuple[jax.Array, PyTree]]:
    """Differentiate the mean loss, as `jax.value_and_grad`, and return the losses behind it.

        (ℓ_i(θ))_i,  ∇ (1/n) Σ_i ℓ_i(θ)

    Handed to `update` as `losses=losses`, they save `adameka` a forward pass wherever the compiler
    does not notice that it computes the same losses twice: XLA notices for simple networks only.

    Args:
      value_fn: parameters to per-example losses, shape (n,), or to a scalar.

    Returns:
      A function from parameters to `(losses, gradient)`: losses of shape (n,), (1,) for a scalar,
      and a gradient of the structure and dtypes of the parameters.

    Raises:
      ValueError, TypeError: if `value_fn` does not return losses of shape (n,) or a scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from mekax.optimizers import losses_and_grad
      >>> losses, grads = losses_and_grad(lambda w: w * jnp.array([1.0, 3.0]))(jnp.array(2.0))
      >>> losses.tolist(), grads.item()
      ([2.0, 6.0], 2.0)
    """

    def mean(params: PyTree) -> tuple[jax.Array, jax.Array]:
        losses = per_example_losses(value_fn)(params)
        return jnp.mean(losses), losses

    def evaluate(params: PyTree) -> tuple[jax.Array, PyTree]:
        (_, losses), gradient = jax.value_and_grad(mean, has_aux=True)(params)
        return losses, gradient

    return evaluate
