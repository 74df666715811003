"""A random key for each example where none is given: when it is measured."""

import jax
import jax.numpy as jnp


def key_of(values: jax.Array) -> jax.Array:
    """A key that is a function of an example's values, so that examples get different ones.

    Were there one key for all, what is measured would depend on what that key happens to give,
    however many examples there are.
    """
    number = jnp.sum(values) * 2**16
    return jax.random.fold_in(jax.random.key(0), number.astype(jnp.int32))
