import jax
import jax.numpy as jnp
import numpy as np
from mekax.curvature._probes import rademacher_like


def test_signs_are_fair_and_uncorrelated():
    tree = {"a": jnp.zeros((7, 5)), "b": jnp.zeros(3), "c": jnp.zeros(())}
    n = 4000
    draws = jax.vmap(lambda k: rademacher_like(k, tree))(jax.random.split(jax.random.key(0), n))
    z = np.concatenate([np.asarray(x).reshape(n, -1) for x in jax.tree.leaves(draws)], axis=1)
    assert z.shape == (n, 39)
    assert set(np.unique(z)) == {-1.0, 1.0}
    correlation = z.T @ z / n
    np.testing.assert_array_equal(np.diag(correlation), 1.0)
    assert np.abs(z.mean(0)).max() < 4.5 / np.sqrt(n)
    assert np.abs(correlation - np.eye(39)).max() < 5 / np.sqrt(n)


def test_dtypes_and_empty_leaves_are_kept():
    tree = [jnp.zeros(3, jnp.bfloat16), jnp.zeros((0, 2))]
    signs = rademacher_like(jax.random.key(1), tree)
    assert [(s.shape, s.dtype) for s in signs] == [(t.shape, t.dtype) for t in tree]
