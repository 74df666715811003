"""What a differential equation is here."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any
Field = Callable[[jax.Array, PyTree], PyTree]  # (t, y) -> dy/dt, y and dy/dt alike
Integrate = Callable[[Field, PyTree, float, float], PyTree]  # (field, y0, t0, t1) -> y(t1)


def dtype_of(y: PyTree) -> jnp.dtype:
    """The type in which a state is computed with, which is that of the time as well."""
    return jnp.result_type(*jax.tree.leaves(y))
