import jax
import jax.numpy as jnp

from ..curvature._trees import PyTree


def update_ema(average: PyTree, value: PyTree, decay: jax.typing.ArrayLike) -> PyTree:
    """Advance an uncorrected exponential moving average, started at 0."""
    return jax.tree.map(lambda a, v: decay * a + (1 - decay) * v, average, value)


def debias(average: PyTree, decay: jax.typing.ArrayLike, count: jax.Array) -> PyTree:
    """Correct the start at 0 of an average that has seen `count` ≥ 1 values."""

    def correct(a: jax.Array) -> jax.Array:
        weight = -jnp.expm1(count.astype(a.dtype) * jnp.log(jnp.asarray(decay, a.dtype)))
        return a / jnp.where(count > 0, weight, 1)

    return jax.tree.map(correct, average)
