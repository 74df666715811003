"""The trace of a vector field's Jacobian, exactly and estimated."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def divergence(function: Callable[[jax.Array], jax.Array], y: jax.Array) -> tuple[jax.Array, ...]:
    """The value of a vector field and tr ∂f/∂y, by as many forward derivatives as y has entries.

    Args:
      function: maps vectors of shape (d,) to such vectors.
      y: where, shape (d,).

    Returns:
      f(y), shape (d,), and the trace, shape ().

    Example:
      >>> value, trace = divergence(lambda y: y**2, jnp.array([1.0, 2.0]))
      >>> print(value, trace)
      [1. 4.] 6.0

    Source: R. T. Q. Chen, Y. Rubanova, J. Bettencourt and D. Duvenaud, *Neural Ordinary
    Differential Equations* (2018), arXiv:1806.07366, equation 8.
    """
    value, push = jax.linearize(function, y)
    return value, jnp.trace(jax.vmap(push)(jnp.eye(y.size, dtype=y.dtype)))


def hutchinson_divergence(
    function: Callable[[jax.Array], jax.Array], y: jax.Array, probe: jax.Array
) -> tuple[jax.Array, ...]:
    """The value of a vector field and vᵀ (∂f/∂y) v, which is the trace in expectation.

    Args:
      function: maps vectors of shape (d,) to such vectors.
      y: where, shape (d,).
      probe: v, random with mean 0 and covariance I, for example of random signs, shape (d,).

    Returns:
      f(y), shape (d,), and the estimate, shape ().

    Example:
      >>> probe = jnp.array([1.0, -1.0])
      >>> print(hutchinson_divergence(lambda y: y**2, jnp.array([1.0, 2.0]), probe)[1])
      6.0

    Source: W. Grathwohl, R. T. Q. Chen, J. Bettencourt, I. Sutskever and D. Duvenaud, *FFJORD*
    (2019), arXiv:1810.01367, equation 7; M. F. Hutchinson (1989).
    """
    value, tangent = jax.jvp(function, (y,), (probe,))
    return value, jnp.vdot(probe, tangent)
