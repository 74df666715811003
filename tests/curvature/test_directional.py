import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from mekax.curvature import dense_statistics, directional, directional_derivatives, per_example


def test_per_example_derivatives_against_dense_ones(problem):
    loss_fn, params, batch, displacement = problem
    value, slope, curvature, third = directional_derivatives(
        per_example(loss_fn, batch), params, displacement, order=3
    )
    theta, unravel = ravel_pytree(params)
    v, _ = ravel_pytree(displacement)
    for i in range(7):
        example = jax.tree.map(lambda x, i=i: x[i], batch)

        def loss(vector, example=example):
            return loss_fn(unravel(vector), example)

        tensor = jax.jacfwd(jax.hessian(loss))(theta)
        np.testing.assert_allclose(value[i], loss(theta), rtol=1e-12)
        np.testing.assert_allclose(slope[i], jax.grad(loss)(theta) @ v, rtol=1e-11)
        np.testing.assert_allclose(curvature[i], v @ jax.hessian(loss)(theta) @ v, rtol=1e-11)
        np.testing.assert_allclose(
            third[i], jnp.einsum("ijk,i,j,k", tensor, v, v, v), rtol=1e-9, atol=1e-12
        )


def test_statistics_against_dense_ones(problem):
    loss_fn, params, batch, displacement = problem
    stats = directional(per_example(loss_fn, batch), params, displacement)
    dense = dense_statistics(loss_fn, params, batch, displacement)
    v, _ = ravel_pytree(displacement)
    expected = (
        dense.value,
        dense.value_variance,
        dense.slope,
        dense.slope_variance,
        dense.product @ v,
        v @ dense.product_variance @ v,
    )
    np.testing.assert_allclose(np.array(stats), np.array(expected), rtol=1e-11)


def test_scalar_objective_has_no_variance():
    stats = directional(lambda w: jnp.sum(w**2), jnp.ones(3), jnp.ones(3))
    assert [float(x) for x in stats] == [3.0, 0.0, 6.0, 0.0, 6.0, 0.0]


@pytest.mark.parametrize("shape", [(2, 3), (0,)])
def test_wrong_shape_says_what_is_expected(shape):
    with pytest.raises(ValueError, match=r"shape \(batch,\)"):
        directional(lambda w: jnp.zeros(shape) * w, jnp.ones(()), jnp.ones(()))
