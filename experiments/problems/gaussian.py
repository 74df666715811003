"""Normal distributions of independent entries, in nats."""

import jax
import jax.numpy as jnp


def surprise(x: jax.Array, mean: jax.Array, deviation: jax.Array | float) -> jax.Array:
    """−log N(x; mean, deviation²), entry by entry."""
    square = jnp.square((x - mean) / deviation)
    return (square + jnp.log(2 * jnp.pi)) / 2 + jnp.log(deviation)


def kl(
    mean: jax.Array,
    deviation: jax.Array,
    other_mean: jax.Array | float = 0.0,
    other_deviation: jax.Array | float = 1.0,
) -> jax.Array:
    """KL(N(mean, deviation²) ‖ N(other_mean, other_deviation²)), shape ()."""
    ratio, distance = deviation / other_deviation, (mean - other_mean) / other_deviation
    return jnp.sum((jnp.square(ratio) + jnp.square(distance) - 1) / 2 - jnp.log(ratio))
