"""The logarithm of the determinant of x ↦ x + g(x), exactly and by a random number of terms.

If g contracts, there is a series:

    log det(I + J) = ∑ₖ (−1)ᵏ⁺¹ tr(Jᵏ) / k,    J = ∂g/∂x,    ‖J‖ < 1
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

_SURE = 2  # terms that are always there
_GOES_ON = 0.85  # probability of each further one, given the one before; above ‖J‖², see below


def log_determinant(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """The logarithm of |det(I + ∂g/∂x)|, by as many forward derivatives as x has entries.

    Args:
      function: g, maps vectors of shape (d,) to such vectors.
      x: where, shape (d,).

    Returns:
      The logarithm, shape ().

    Example:
      >>> print(f"{log_determinant(lambda x: 0.5 * x, jnp.ones(2)):.4f}, exact {jnp.log(2.25):.4f}")
      0.8109, exact 0.8109

    Source: J. Behrmann, W. Grathwohl, R. T. Q. Chen, D. Duvenaud and J.-H. Jacobsen, *Invertible
    Residual Networks* (2019), arXiv:1811.00995, equation 2.
    """
    jacobian = jnp.eye(x.size, dtype=x.dtype) + jax.jacfwd(function)(x)
    return jnp.linalg.slogdet(jacobian)[1]


def estimated_log_determinant(
    function: Callable[[jax.Array], jax.Array], x: jax.Array, key: jax.Array, terms: int
) -> jax.Array:
    """The logarithm of det(I + ∂g/∂x) in expectation, by products of ∂g/∂x with a random vector.

    The traces are estimated by vᵀ Jᵏ v with random signs v, and the series is cut after a random
    number N of terms, those that are left being divided by the probability of being left:

        ∑ₖ₌₁ᴺ (−1)ᵏ⁺¹ vᵀ Jᵏ v / (k · P(N ≥ k)),    P(N ≥ k) = 1, 1, p, p², …

    with p = 0.85. The terms shrink by up to c, where ‖J‖ ≤ c, and the weights grow by 1/p: were c²
    above p, rare estimates would be huge, and their variance could grow with every term.

    Under `jit` and `vmap` a loop has no random length, so N is not let above `terms`, and terms
    after N cost their time and count for nothing. The expectation is the series of `terms` terms,
    off by no more than d cⁿ / (n (1 − c)) with n = terms + 1. Value, gradient and Hessian are
    unbiased alike, as all of it is differentiated.

    Args:
      function: g, maps vectors of shape (d,) to such vectors, of Lipschitz constant below 1.
      x: where, shape (d,).
      key: of v and N.
      terms: at most, 2 or more.

    Returns:
      The estimate, shape ().

    Raises:
      ValueError: if there are too few terms.

    Example:
      >>> keys = jax.random.split(jax.random.key(0), 10_000)
      >>> one = lambda key: estimated_log_determinant(lambda x: 0.5 * x, jnp.ones(2), key, 20)
      >>> print(f"{jax.vmap(one)(keys).mean():.2f}, exact {jnp.log(2.25):.2f}")
      0.81, exact 0.81

    Source: R. T. Q. Chen, J. Behrmann, D. Duvenaud and J.-H. Jacobsen, *Residual Flows for
    Invertible Generative Modeling* (2019), arXiv:1906.02735, equation 6.
    """
    if terms < _SURE:
        raise ValueError(f"expected {_SURE} terms at least, got terms={terms}")
    for_probe, for_count = jax.random.split(key)
    probe = jax.random.rademacher(for_probe, x.shape, x.dtype)
    luck = jax.random.uniform(for_count, dtype=x.dtype)
    k = jnp.arange(1, terms + 1)
    probability = _GOES_ON ** jnp.maximum(k - _SURE, 0).astype(x.dtype)
    sign = jnp.where(k % 2 == 1, 1, -1)
    weights = jnp.where(luck < probability, sign / (k * probability), 0)
    _, push = jax.linearize(function, x)

    def multiply(power: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        power = push(power)
        return power, weight * jnp.vdot(probe, power)

    return jax.lax.scan(multiply, probe, weights.astype(x.dtype))[1].sum()
