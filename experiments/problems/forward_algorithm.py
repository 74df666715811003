"""The forward algorithm of hidden Markov models, in logarithms."""

import jax


def forward(
    log_start: jax.Array, log_transition: jax.Array, log_likelihood: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Sum over all sequences of hidden states, one time after the other (forward algorithm).

    Args:
      log_start: log P(z₁), shape (states,).
      log_transition: log P(z_t | z_t−1), z_t−1 along the rows, shape (states, states).
      log_likelihood: log p(x_t | x_t−1, z_t), shape (times, states).

    Returns:
      log p(x₁, …, x_n), and log P(z_t | x₁, …, x_t−1) of shape (times, states).

    Example:
      >>> import jax.numpy as jnp
      >>> half = jnp.log(jnp.full(2, 0.5))
      >>> total, _ = forward(half, jnp.stack([half, half]), jnp.log(jnp.array([[0.2, 0.4]])))
      >>> round(float(jnp.exp(total)), 4)
      0.3

    Source: L. R. Rabiner, *A Tutorial on Hidden Markov Models* (1989), section III A.
    """

    def advance(predicted: jax.Array, of_x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        joint = predicted + of_x
        evidence = jax.nn.logsumexp(joint)
        ahead = jax.nn.logsumexp(joint[:, None] - evidence + log_transition, axis=0)
        return ahead, (evidence, predicted)

    _, (evidence, predicted) = jax.lax.scan(advance, log_start, log_likelihood)
    return evidence.sum(), predicted
