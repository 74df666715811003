"""Both estimators against loops over examples with `jax.hessian`, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from mekax.curvature import COVARIANCES, exact, per_example, sketched

from .dense import dense_statistics


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


def reduce_dense(matrix, params, covariance):
    """Trace-preserving reduction of a dense covariance, written without the library."""
    diagonal = np.diag(matrix)
    _, unravel = ravel_pytree(params)
    if covariance == "scalar":
        return diagonal.mean()
    tree = unravel(jnp.asarray(diagonal))
    return tree if covariance == "diagonal" else jax.tree.map(np.mean, tree)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("chunk_size", [None, 1, 2, 3, 7, 100])
def test_exact_equals_dense(problem, covariance, chunk_size):
    loss_fn, params, batch, displacement = problem
    dense = dense_statistics(loss_fn, params, batch, displacement)
    stats = exact(per_example(loss_fn, batch, chunk_size), params, displacement, covariance)
    for name in ("value", "value_variance", "gradient", "product", "slope", "slope_variance"):
        np.testing.assert_allclose(flat(getattr(stats, name)), getattr(dense, name), rtol=1e-11)
    for name in ("gradient_variance", "product_variance"):
        expected = reduce_dense(getattr(dense, name), params, covariance)
        np.testing.assert_allclose(flat(getattr(stats, name)), flat(expected), rtol=1e-11)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_sketched_means_are_exact_and_variances_unbiased(problem, covariance):
    loss_fn, params, batch, displacement = problem
    value_fn = per_example(loss_fn, batch)
    truth = exact(value_fn, params, displacement, covariance)
    probes = 4000
    keys = jax.random.split(jax.random.key(0), probes)
    stats = jax.jit(
        jax.vmap(lambda key: sketched(value_fn, params, displacement, key, covariance))
    )(keys)
    for name in ("value", "value_variance", "gradient", "product", "slope", "slope_variance"):
        sample = flat(jax.tree.map(lambda x: x[0], getattr(stats, name)))
        np.testing.assert_allclose(sample, flat(getattr(truth, name)), rtol=1e-11)
    for name in ("gradient_variance", "product_variance"):
        samples = np.stack([flat(x) for x in zip_rows(getattr(stats, name), probes)])
        error = samples.mean(0) - flat(getattr(truth, name))
        standard_error = samples.std(0, ddof=1) / np.sqrt(probes)
        assert np.all(standard_error > 0)
        assert np.all(np.abs(error) <= 4 * standard_error)


def zip_rows(tree, rows):
    host = jax.tree.map(np.asarray, tree)
    return (jax.tree.map(lambda x, i=i: x[i], host) for i in range(rows))


def test_exact_needs_a_per_example_value_fn(problem):
    _, params, _, displacement = problem
    with pytest.raises(TypeError, match="per_example"):
        exact(lambda p: jnp.zeros(3), params, displacement)


def test_unknown_covariance_lists_the_structures(problem):
    loss_fn, params, batch, displacement = problem
    with pytest.raises(ValueError, match="'per_leaf'"):
        exact(per_example(loss_fn, batch), params, displacement, "dense")  # pyright: ignore


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_one_example_and_scalars_are_noise_free(problem, covariance):
    loss_fn, params, batch, displacement = problem
    one = jax.tree.map(lambda x: x[:1], batch)
    key = jax.random.key(1)
    for stats in (
        exact(per_example(loss_fn, one), params, displacement, covariance),
        sketched(per_example(loss_fn, one), params, displacement, key, covariance),
        sketched(
            lambda p: per_example(loss_fn, batch)(p).mean(), params, displacement, key, covariance
        ),
    ):
        assert float(stats.value_variance) == 0.0
        assert not np.any(flat(stats.gradient_variance))
        assert not np.any(flat(stats.product_variance))
        assert np.all(np.isfinite(flat(stats)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_low_precision_parameters_give_float32_statistics(dtype):
    params = {"w": jnp.ones((2, 2), dtype), "b": jnp.zeros((), dtype)}
    x = jnp.array([[1.0, 2.0], [3.0, -1.0], [0.5, 0.5]], dtype)

    def loss(p, example):
        return jnp.sum(jnp.square(p["w"] @ example + p["b"]))

    value_fn = per_example(loss, x)
    for stats in (
        exact(value_fn, params, params, "per_leaf"),
        sketched(value_fn, params, params, jax.random.key(0), "per_leaf"),
    ):
        assert {leaf.dtype for leaf in jax.tree.leaves(stats)} == {jnp.dtype(jnp.float32)}
        assert np.all(np.isfinite(flat(stats)))


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("chunk_size", [1, 3])
def test_sketched_statistics_do_not_depend_on_the_chunk(problem, covariance, chunk_size):
    loss_fn, params, batch, displacement = problem
    key = jax.random.key(3)
    whole, chunked = (
        jax.jit(
            lambda size=size: sketched(
                per_example(loss_fn, batch, size), params, displacement, key, covariance
            )
        )()
        for size in (None, chunk_size)
    )
    np.testing.assert_allclose(flat(chunked), flat(whole), rtol=1e-10, atol=1e-14)
