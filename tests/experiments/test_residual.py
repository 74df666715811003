"""Bounds, determinants and inverses of residual maps against exact ones."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mekax.experiments import solvers


@pytest.mark.parametrize("shape", [(1, 1), (2, 30), (30, 2), (24, 24), (20, 31)])
def test_spectral_bound(shape):
    bound = jax.jit(solvers.spectral_bound)
    for scale in (1e-3, 1.0, 1e3):
        matrix = scale * np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        largest = np.linalg.norm(matrix, 2)
        excess = bound(matrix) / largest
        assert 1 - 1e-5 <= excess <= min(shape) ** (1 / 128) * (1 + 1e-5)


@pytest.mark.usefixtures("float64")
def test_spectral_bound_differentiates_twice_where_singular_values_meet():
    rng = np.random.default_rng(1)
    matrix, direction = jnp.eye(3), jnp.asarray(rng.standard_normal((3, 3)))
    both = jax.jit(lambda m: jax.jvp(jax.grad(solvers.spectral_bound), (m,), (direction,)))
    gradient, product = both(matrix)
    ahead, behind = (both(matrix + s * 1e-5 * direction)[0] for s in (1, -1))
    np.testing.assert_allclose(product, (ahead - behind) / 2e-5, rtol=1e-5, atol=1e-6)
    # To first order all three singular values count alike: the derivative is the mean of theirs.
    np.testing.assert_allclose(gradient, np.eye(3) / 3 ** (1 - 1 / 128), atol=1e-8)


def test_contracted():
    matrix = jnp.asarray(np.random.default_rng(2).standard_normal((5, 7)), jnp.float32)
    assert 0.88 < np.linalg.norm(solvers.contracted(matrix, 0.9), 2) <= 0.9 * (1 + 1e-5)
    np.testing.assert_array_equal(solvers.contracted(0.01 * matrix, 0.9), 0.01 * matrix)


WEIGHT = jnp.array([[0.6, -0.4], [0.3, 0.5]])
X = jnp.array([0.4, -0.3])


def contraction(weight, x):
    return 0.9 * jnp.tanh(weight @ x + 0.2)


def exact(weight):
    return solvers.log_determinant(partial(contraction, weight), X.astype(weight.dtype))


def estimate(weight, key, terms=30):
    x = X.astype(weight.dtype)
    return solvers.estimated_log_determinant(partial(contraction, weight), x, key, terms)


def test_log_determinant():
    jacobian = jnp.eye(2) + jax.jacobian(partial(contraction, WEIGHT))(X)
    np.testing.assert_allclose(exact(WEIGHT), jnp.log(jnp.linalg.det(jacobian)), rtol=1e-5)


@pytest.mark.usefixtures("float64")
def test_estimates_are_unbiased_in_every_order():
    weight, direction = WEIGHT.astype(jnp.float64), jnp.array([[0.5, 1.0], [-1.0, 0.3]])

    def orders(log_determinant, weight):
        def value_and_grad(weight):
            return jax.value_and_grad(log_determinant)(weight)

        (value, grad), (_, product) = jax.jvp(value_and_grad, (weight,), (direction,))
        return jnp.concatenate([value[None], grad.ravel(), product.ravel()])

    keys = jax.random.split(jax.random.key(0), 20_000)
    several = jax.jit(jax.vmap(lambda key: orders(lambda w: estimate(w, key), weight)))(keys)
    deviation = several.std(axis=0)
    error = several.mean(axis=0) - jax.jit(partial(orders, exact))(weight)
    assert np.all(deviation > 1e-3)
    assert np.all(np.abs(error) < 4 * deviation / np.sqrt(len(keys)))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("terms", [2, 4])
def test_at_most_so_many_terms(terms):
    # With a symmetric matrix of equal eigenvalues every probe gives the trace.
    def one(key):
        return solvers.estimated_log_determinant(lambda x: -0.5 * x, jnp.ones(2), key, terms)

    mean = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 4_000)).mean()
    series = -2 * sum(0.5**k / k for k in range(1, terms + 1))
    left_out = 2 * 0.5 ** (terms + 1) / ((terms + 1) * 0.5)
    assert mean == pytest.approx(series, abs=2e-3)
    assert 0 < series - 2 * np.log(0.5) < left_out


def test_too_few_terms():
    with pytest.raises(ValueError, match="terms=1"):
        estimate(WEIGHT, jax.random.key(0), terms=1)


def test_inverse():
    y = 3 * jax.random.normal(jax.random.key(0), (50, 2))
    x = jax.jit(jax.vmap(partial(solvers.invert, partial(contraction, WEIGHT))))(y)
    again = x + jax.vmap(partial(contraction, WEIGHT))(x)
    np.testing.assert_allclose(again, y, atol=1e-5)


def test_inverse_stops_where_there_is_no_contraction():
    assert solvers.invert(lambda x: 2 * x, jnp.ones(2), max_steps=7).tolist() == [-85] * 2
