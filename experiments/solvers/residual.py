"""Invertible residual maps x ↦ x + g(x), where g contracts: bounds, determinants, inverses.

J. Behrmann, W. Grathwohl, R. T. Q. Chen, D. Duvenaud and J.-H. Jacobsen, *Invertible Residual
Networks* (2019), arXiv:1811.00995; R. T. Q. Chen, J. Behrmann, D. Duvenaud and J.-H. Jacobsen,
*Residual Flows for Invertible Generative Modeling* (2019), arXiv:1906.02735.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

_SQUARINGS = 5
_SURE = 2  # terms of the series that are always there
_CONTINUES = 0.85  # probability of each further one, given the one before; above ‖J‖², see below
_PRECISION = 8  # units of rounding of the largest entry

Map = Callable[[jax.Array], jax.Array]  # from vectors of shape (d,) to such vectors
_State = tuple[jax.Array, ...]


def spectral_bound(matrix: jax.Array) -> jax.Array:
    """An upper bound of the largest singular value, close to it.

    The Schatten norm (∑ σᵢᵖ)^(1/p) with p = 128, by repeated squaring of the Gram matrix: never
    below the largest of n singular values, and at most n^(1/128) times it, 3 % above for n = 64.
    It is a smooth function of every matrix but 0. (Power iteration with frozen vectors has wrong
    second derivatives, and the derivatives of singular vectors blow up where two values meet.)

    Args:
      matrix: shape (m, n), not 0.

    Returns:
      The bound, shape ().

    Example:
      >>> print(f"{spectral_bound(jnp.diag(jnp.array([3.0, 2.0, -1.0]))):.3f}")
      3.000

    Source: B. Delattre, Q. Barthélemy, A. Araujo and A. Allauzen, *Efficient Bound of Lipschitz
    Constant for Convolutional Layers by Gram Iteration* (2023), arXiv:2305.16173, algorithm 1.
    """
    rows, columns = matrix.shape
    power = matrix @ matrix.T if rows <= columns else matrix.T @ matrix

    def square(state: _State, _: None) -> tuple[_State, None]:
        power, log_scale = state  # the matrix kept near 1, and the logarithm of its scale
        scale = jnp.linalg.norm(power)
        power = (power / scale) @ (power / scale)
        return (power, 2 * (log_scale + jnp.log(scale))), None

    start = (power, jnp.zeros((), matrix.dtype))
    (power, log_scale), _ = jax.lax.scan(square, start, None, length=_SQUARINGS)
    log_norm = log_scale + jnp.log(jnp.linalg.norm(power))
    return jnp.exp(log_norm / 2 ** (_SQUARINGS + 1))


def contracted(matrix: jax.Array, bound: float) -> jax.Array:
    """The matrix, scaled down if need be so that it stretches nothing by more than `bound`.

    Args:
      matrix: shape (m, n), not 0.
      bound: of the largest singular value.

    Returns:
      A multiple of the matrix.

    Example:
      >>> print(contracted(jnp.array([[4.0]]), 0.5), contracted(jnp.array([[0.25]]), 0.5))
      [[0.5]] [[0.25]]

    Source: Chen et al. (2019), section 2, after Behrmann et al. (2019), equation 10.
    """
    return matrix * (bound / jnp.maximum(spectral_bound(matrix), bound))


def log_determinant(function: Map, x: jax.Array) -> jax.Array:
    """Compute log |det(I + ∂g/∂x)| by as many forward derivatives as x has entries.

    Args:
      function: g, maps vectors of shape (d,) to such vectors.
      x: where, shape (d,).

    Returns:
      The logarithm, shape ().

    Example:
      >>> print(f"{log_determinant(lambda x: 0.5 * x, jnp.ones(2)):.4f}, exact {jnp.log(2.25):.4f}")
      0.8109, exact 0.8109

    Source: Behrmann et al. (2019), equation 2.
    """
    jacobian = jnp.eye(x.size, dtype=x.dtype) + jax.jacfwd(function)(x)
    return jnp.linalg.slogdet(jacobian)[1]


def estimated_log_determinant(function: Map, x: jax.Array, key: jax.Array, terms: int) -> jax.Array:
    """An unbiased estimate of log det(I + J), J = ∂g/∂x, by products of J with a random vector.

    If ‖J‖ < 1 there is the series log det(I + J) = ∑ₖ (−1)ᵏ⁺¹ tr(Jᵏ) / k. Its traces are estimated
    by vᵀ Jᵏ v with random signs v, and it is cut after a random number N of terms, each divided by
    the probability that it is there:

        ∑ₖ₌₁ᴺ (−1)ᵏ⁺¹ vᵀ Jᵏ v / (k · P(N ≥ k)),    P(N ≥ k) = 1, 1, p, p², …

    with p = 0.85. The terms shrink by up to c, where ‖J‖ ≤ c, and the weights grow by 1/p: were c²
    above p, rare estimates would be huge, and their variance could grow with every term.

    Under `jit` and `vmap` a loop has no random length, so N is at most `terms`, and terms after N
    cost their time without counting. The expectation is the series of `terms` terms, off by no more
    than d cⁿ / (n (1 − c)) with n = terms + 1. Value, gradient and Hessian are unbiased alike, as
    all of it is differentiated.

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

    Source: Chen et al. (2019), equation 6.
    """
    if terms < _SURE:
        raise ValueError(f"expected {_SURE} terms at least, got terms={terms}")
    probe_key, count_key = jax.random.split(key)
    probe = jax.random.rademacher(probe_key, x.shape, x.dtype)
    uniform = jax.random.uniform(count_key, dtype=x.dtype)
    k = jnp.arange(1, terms + 1)
    probability = _CONTINUES ** jnp.maximum(k - _SURE, 0).astype(x.dtype)
    sign = jnp.where(k % 2 == 1, 1, -1)
    weights = jnp.where(uniform < probability, sign / (k * probability), 0)
    _, push = jax.linearize(function, x)

    def multiply(power: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        power = push(power)
        return power, weight * jnp.vdot(probe, power)

    return jax.lax.scan(multiply, probe, weights.astype(x.dtype))[1].sum()


def invert(function: Map, y: jax.Array, max_steps: int = 500) -> jax.Array:
    """Find x with x + g(x) = y by x ← y − g(x), until it moves no more than rounding does.

    The error falls by the Lipschitz constant c of g with every step, so x is as exact as
    rounding / (1 − c) allows. Not meant to be differentiated.

    Args:
      function: g, of Lipschitz constant below 1.
      y: shape (d,).
      max_steps: after which x is returned as it is.

    Returns:
      x, shape (d,).

    Example:
      >>> y = jnp.array([1.0, -2.0])
      >>> x = invert(lambda x: 0.5 * jnp.sin(x), y)
      >>> print(jnp.abs(x + 0.5 * jnp.sin(x) - y).max() < 1e-6)
      True

    Source: Behrmann et al. (2019), algorithm 1.
    """
    tolerance = _PRECISION * jnp.finfo(y.dtype).eps * jnp.maximum(jnp.abs(y).max(), 1)

    def moves(state: _State) -> jax.Array:
        _, moved, steps = state
        return (moved > tolerance) & (steps < max_steps)

    def advance(state: _State) -> _State:
        x, _, steps = state
        closer = y - function(x)
        return closer, jnp.abs(closer - x).max(), steps + 1

    infinity = jnp.full((), jnp.inf, y.dtype)
    return jax.lax.while_loop(moves, advance, (y, infinity, jnp.zeros((), jnp.int32)))[0]
