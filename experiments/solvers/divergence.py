"""The trace of a vector field's Jacobian, exactly and estimated."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def divergence(
    function: Callable[[jax.Array], jax.Array], y: jax.Array
) -> tuple[jax.Array, jax.Array]:
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
) -> tuple[jax.Array, jax.Array]:
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


def hollow_divergence(
    condition: Callable[[jax.Array], jax.Array],
    transform: Callable[[jax.Array, jax.Array], jax.Array],
    y: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The value of f(y) = transform(y, condition(y)) and tr ∂f/∂y, by one forward derivative.

    Exact if entry i of f depends on entry i of y and row i of the conditions alone, and row i of
    the conditions does not depend on entry i of y: neither is checked.

    Args:
      condition: maps vectors of shape (d,) to d rows, each made of the other entries.
      transform: maps such a vector and such rows to a vector of shape (d,), entry by entry.
      y: where, shape (d,).

    Returns:
      f(y), shape (d,), and the trace, shape ().

    Example:
      >>> y = jnp.array([1.0, 2.0])
      >>> value, trace = hollow_divergence(lambda y: y[::-1], lambda y, other: y**2 * other, y)
      >>> print(value, trace)
      [2. 4.] 8.0

    Source: R. T. Q. Chen and D. Duvenaud, *Neural Networks with Cheap Differential Operators*
    (2019), arXiv:1912.03579, section 2.1.
    """
    rows = condition(y)
    value, diagonal = jax.jvp(lambda y: transform(y, rows), (y,), (jnp.ones_like(y),))
    return value, jnp.sum(diagonal)
