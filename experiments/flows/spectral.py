"""How much a matrix stretches, as a smooth function of the matrix.

Power iteration with frozen vectors gives wrong second derivatives, and the derivatives of singular
vectors blow up where two singular values meet. Repeated squaring has neither defect.
"""

import jax
import jax.numpy as jnp

_SQUARINGS = 5

_Scaled = tuple[jax.Array, jax.Array]  # a matrix kept near 1, and the logarithm of its scale


def spectral_bound(matrix: jax.Array) -> jax.Array:
    """An upper bound of the largest singular value, close to it.

    The Schatten norm (∑ σᵢᵖ)^(1/p) with p = 128, by repeated squaring of the Gram matrix: never
    below the largest of n singular values, and at most n^(1/128) times it, 3 % above for n = 64.
    It is a smooth function of every matrix but 0, and everything differentiates.

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

    def square(state: _Scaled, _: None) -> tuple[_Scaled, None]:
        power, log_scale = state
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

    Source: R. T. Q. Chen, J. Behrmann, D. Duvenaud and J.-H. Jacobsen, *Residual Flows for
    Invertible Generative Modeling* (2019), arXiv:1906.02735, section 2, after J. Behrmann and
    others (2019), arXiv:1811.00995, equation 10.
    """
    return matrix * (bound / jnp.maximum(spectral_bound(matrix), bound))
