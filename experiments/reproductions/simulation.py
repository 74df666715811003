"""Small stochastic objectives, followed exactly: the parameters after every step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax


def path(
    tx: optax.GradientTransformationExtraArgs,
    losses: Callable[[jax.Array, jax.Array], jax.Array],
    start: jax.Array,
    noise: jax.Array,
) -> jax.Array:
    """Follow an optimizer.

    Args:
      tx: the optimizer.
      losses: `(params, batch) -> (n,)`.
      start: first parameters, shape (d,).
      noise: batches of all steps, shape (steps, …).

    Returns:
      Parameters after every step, shape (steps, d).
    """

    def step(carry, batch):
        params, state = carry

        def value_fn(p: jax.Array) -> jax.Array:
            return losses(p, batch)

        value, grads = jax.value_and_grad(lambda p: jnp.mean(value_fn(p)))(params)
        updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=value_fn)
        params = jnp.asarray(optax.apply_updates(params, updates))
        return (params, state), params

    return jax.lax.scan(step, (start, tx.init(start)), noise)[1]
