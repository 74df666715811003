import jax
import numpy as np
import pytest
from mekax.curvature import mean_and_variance, merge_moments, moments, variance_of_mean


@pytest.mark.parametrize("split", [1, 3, 5])
def test_merging_equals_the_whole(float64, split):
    x = np.random.default_rng(0).normal(size=(6, 4)) * 1e3 + 1e6
    merged = merge_moments(moments(x[:split]), moments(x[split:]))
    np.testing.assert_allclose(merged.mean, x.mean(0), rtol=1e-13)
    np.testing.assert_allclose(variance_of_mean(merged), x.var(0, ddof=1) / 6, rtol=1e-9)


def test_merging_is_associative_over_trees(float64):
    rng = np.random.default_rng(1)
    parts = [moments({"a": rng.normal(size=(n, 2)), "b": rng.normal(size=n)}) for n in (1, 2, 5)]
    left = merge_moments(merge_moments(parts[0], parts[1]), parts[2])
    right = merge_moments(parts[0], merge_moments(parts[1], parts[2]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13), left, right)


def test_normalization_is_the_variance_of_the_mean():
    """Monte Carlo: the stated variance is that of batch means over fresh batches."""
    rng = np.random.default_rng(2)
    batches = rng.exponential(size=(20_000, 8)).astype(np.float32)
    means, variances = map(np.asarray, jax.jit(jax.vmap(mean_and_variance))(batches))
    assert np.mean(variances) == pytest.approx(np.var(means, ddof=1), rel=0.05)
    assert np.mean(variances) == pytest.approx(1 / 8, rel=0.05)


def test_one_example_has_no_variance():
    assert float(mean_and_variance(np.array([3.0], np.float32))[1]) == 0.0
