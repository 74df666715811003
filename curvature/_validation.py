"""What a value function and parameters must be, checked while tracing, at no run-time cost."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ._tree import PyTree

ValueFn = Callable[[PyTree], jax.Array]


def check_params(params: PyTree, complex_too: bool = False) -> None:
    """Raise unless `params` has at least one leaf and all leaves are floating-point arrays.

    Args:
      params: a pytree of arrays.
      complex_too: whether complex leaves will do.
    """
    wanted = jnp.inexact if complex_too else jnp.floating
    leaves = jax.tree_util.tree_leaves_with_path(params)
    # Optax probes the structure of states with a leafless placeholder of its own type.
    if not leaves and isinstance(params, dict | list | tuple | None):
        raise ValueError(
            "mekax: expected params with at least one floating-point array, got an empty pytree. "
            "Pass the parameters of the model, the same pytree to init and to update."
        )
    for path, leaf in leaves:
        if callable(leaf):  # an activation function, as Equinox keeps in a model
            raise TypeError(
                f"mekax: expected params whose leaves are all real floating-point arrays, got a "
                f"function at {jax.tree_util.keystr(path) or 'the only leaf'}. Pass the arrays of "
                f"the model alone, with Equinox eqx.filter(model, eqx.is_inexact_array)."
            )
        dtype = getattr(leaf, "dtype", None) or jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, wanted):
            name = jax.tree_util.keystr(path) or "the only leaf"
            raise TypeError(
                f"mekax: expected params whose leaves are all real floating-point arrays, got "
                f"dtype {dtype} at {name}. Keep counters and keys outside the params "
                f"(or set their leaves to None), and split complex parameters into real and "
                f"imaginary parts, or train them by adameka."
            )


def per_example_losses(value_fn: ValueFn) -> ValueFn:
    """Wrap `value_fn` so that it returns losses of shape (n,), with the shape checked.

    A scalar becomes shape (1,): a single, noise-free observation.
    """

    def losses(params: PyTree) -> jax.Array:
        return check_losses(value_fn(params))

    return losses


def check_losses(values: Any, name: str = "value_fn(params) to return") -> jax.Array:
    """Return losses of shape (n,), with the shape checked; a scalar becomes shape (1,).

    Args:
      values: what should be losses.
      name: what was expected to be losses, for the message: a subject and a verb.
    """
    if isinstance(values, tuple | list | dict):
        raise TypeError(
            f"mekax: expected {name} one array of losses, shape (batch,), "
            f"got a {type(values).__name__}. Return the losses alone; auxiliary values, as "
            f"with has_aux=True, come from the gradient's own evaluation."
        )
    shape, dtype = jnp.shape(values), jnp.result_type(values)
    if len(shape) > 1 or 0 in shape:
        raise ValueError(
            f"mekax: expected {name} one loss per example, shape (batch,) "
            f"with batch >= 1, or a scalar for a noise-free objective; got shape {shape}. "
            f"Reduce all axes but the batch, for example losses.mean(axis=-1)."
        )
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"mekax: expected {name} real floating-point losses, got dtype "
            f"{dtype}. Return the losses themselves rather than counts or labels."
        )
    # Vectors pass untouched: a wrapper around them would hide from XLA that the caller's own
    # gradient is the same expression, and the gradient would be computed twice.
    return values if shape else jnp.reshape(values, (1,))
