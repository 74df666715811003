import jax.numpy as jnp
import numpy as np
import pytest
from mekax.curvature import mean_and_variance, observe, weighted


def losses(params, rows):
    return jnp.sin(params["w"] * rows) ** 2 + params["w"] ** 2 * rows


ROWS = jnp.array([0.3, -1.2, 0.7, 2.0, 0.1])
POINT, ALONG = {"w": jnp.array(0.8)}, {"w": jnp.array(1.0)}


def test_padding_is_as_if_it_were_not_there():
    kept = jnp.array([1.0, 0.0, 1.0, 1.0, 0.0])
    padded = observe(lambda p: weighted(losses(p, ROWS), kept), POINT, ALONG)
    alone = observe(lambda p: losses(p, ROWS[kept > 0]), POINT, ALONG)
    np.testing.assert_allclose(np.array(padded), np.array(alone), rtol=1e-5)


def test_equal_weights_change_nothing():
    values = losses(POINT, ROWS)
    np.testing.assert_allclose(weighted(values, jnp.full(5, 3.0)), values, rtol=1e-5)


def test_variance_is_that_of_the_weighted_mean():
    rng = np.random.default_rng(0)
    weights = np.array([1.0, 2.0, 0.5, 1.5] * 50)
    draws = rng.normal(size=(4000, weights.size))
    spread = np.var(draws @ weights / weights.sum())
    _, variance = mean_and_variance(weighted(jnp.asarray(draws[0]), jnp.asarray(weights)))
    np.testing.assert_allclose(variance, spread, rtol=0.2)


def test_padding_may_hold_anything():
    values = weighted(jnp.array([1.0, 3.0, jnp.nan]), jnp.array([1.0, 1.0, 0.0]))
    assert np.isfinite(values).all()


@pytest.mark.parametrize("kept", [0.0, 1.0])
def test_one_example_or_none_has_no_variance(kept):
    values = weighted(jnp.array([5.0, 7.0]), jnp.array([kept, 0.0]))
    np.testing.assert_allclose(values, 5.0 * kept)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="one weight for each example"):
        weighted(jnp.ones(3), jnp.ones(2))
