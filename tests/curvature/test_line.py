import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from mekax.curvature import LineBelief, directional_derivatives, observe, per_example

from .dense import dense_statistics


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


def test_observation_against_dense_matrices(problem):
    loss_fn, params, batch, displacement = problem
    seen = observe(per_example(loss_fn, batch), params, displacement)
    dense = dense_statistics(loss_fn, params, batch, displacement)
    _, slopes, curvatures = directional_derivatives(
        per_example(loss_fn, batch), params, displacement
    )
    v, _ = ravel_pytree(displacement)
    expected = LineBelief(
        value=dense.value,
        value_variance=dense.value_variance,
        slope=dense.slope,
        slope_variance=dense.slope_variance,
        curvature=dense.product @ v,
        curvature_variance=v @ dense.product_variance @ v,
        covariance=np.cov(slopes, curvatures)[0, 1] / 7,
    )
    np.testing.assert_allclose(np.array(seen), np.array(expected), rtol=1e-11)


def test_scalar_objective_has_no_variance():
    seen = observe(lambda w: jnp.sum(w**2), jnp.ones(3), jnp.ones(3))
    assert [float(x) for x in seen] == [3.0, 0.0, 6.0, 0.0, 6.0, 0.0, 0.0]


def test_slope_is_negative_where_the_loss_falls():
    seen = observe(lambda w: jnp.sum(w**2), jnp.ones(3), -jnp.ones(3))
    assert float(seen.slope) == -6.0
    assert float(seen.change(jnp.array(1.0))) == -3.0


@pytest.mark.parametrize("shape", [(2, 3), (0,)])
def test_wrong_shape_says_what_is_expected(shape):
    with pytest.raises(ValueError, match=r"shape \(batch,\)"):
        observe(lambda w: jnp.zeros(shape) * w, jnp.ones(()), jnp.ones(()))


@pytest.mark.parametrize("step", [0.0, 0.3, 1.0, 4.0])
def test_change_against_the_sample_of_a_quadratic(problem, step):
    """Mean and variance of the change over examples, whose losses are quadratic along the line."""
    _, slopes, curvatures = directional_derivatives(per_example(*problem[::2]), *problem[1::2])
    changes = step * np.asarray(slopes) + 0.5 * step**2 * np.asarray(curvatures)
    seen = observe(per_example(*problem[::2]), *problem[1::2])
    np.testing.assert_allclose(seen.change(step), changes.mean(), rtol=1e-11)
    np.testing.assert_allclose(seen.change_variance(step), changes.var(ddof=1) / 7, rtol=1e-10)


@pytest.mark.parametrize("length", [1e-3, 2.0])
def test_rescaling_is_a_change_of_units(problem, length):
    loss_fn, params, batch, displacement = problem
    value_fn = per_example(loss_fn, batch)
    seen = observe(value_fn, params, displacement).rescaled(length)
    longer = jax.tree.map(lambda v: length * v, displacement)
    np.testing.assert_allclose(seen, observe(value_fn, params, longer), rtol=1e-10)


def test_variance_is_never_negative():
    """A perfect correlation of −1 leaves nothing, which rounding would make less than nothing."""
    belief = LineBelief(*map(jnp.float32, (0, 0, -1, 0.3, 1, 0.7, -2 * np.sqrt(0.3 * 0.7))))
    steps = jnp.linspace(0, 4, 1000)
    assert np.all(belief.change_variance(steps) >= 0)
