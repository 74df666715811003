import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mekax.curvature._moments import moments
from mekax.curvature._outer_products import OuterProducts, map_examples

N, IN, HIDDEN = 5, 3, 4


def tree():
    keys = jax.random.split(jax.random.key(0), 4)
    return {
        "first": jax.random.normal(keys[0], (IN, HIDDEN)),
        "bias": jax.random.normal(keys[1], (HIDDEN,)),
        "second": jax.random.normal(keys[2], (HIDDEN, HIDDEN)),
    }


def network(params, x):
    """Dense layers, one of which is used twice."""
    hidden = jnp.tanh(x @ params["first"] + params["bias"])
    return jnp.sum(jnp.tanh(jnp.tanh(hidden @ params["second"]) @ params["second"]))


def of_one(x):
    return jax.jvp(jax.grad(lambda p: network(p, x)), (tree(),), (jax.tree.map(jnp.cos, tree()),))


def of_a_batch_of_one(x):
    return of_one(x[None])


def examples(spread=1.0):
    return 1.0 + spread * jax.random.normal(jax.random.key(1), (N, IN))


@pytest.mark.parametrize("function", [of_one, of_a_batch_of_one])
def test_dense_layers_stay_factors_and_give_the_same_moments(function):
    found = map_examples(function, examples())
    gradient, product = found
    assert gradient["first"].left.shape == (1, N, IN)
    assert gradient["second"].left.shape == (2, N, HIDDEN)  # it is used twice
    assert product["first"].right.shape == (1, N, HIDDEN)  # the input stays as it is
    assert product["second"].right.shape == (4, N, HIDDEN)  # the product rule
    assert gradient["bias"].shape == (N, HIDDEN)
    dense = moments(jax.vmap(function)(examples()))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), moments(found), dense
    )


def test_what_is_no_outer_product_comes_out_as_an_array():
    def function(x):
        weights = jnp.ones((IN, HIDDEN))
        sequence = jnp.outer(jnp.arange(1.0, 4.0), x)  # three tokens: a sum of three products
        shared = jax.grad(lambda w: jnp.sum(jnp.tanh(sequence @ w)))(weights)
        scaled = 2 * jax.grad(lambda w: jnp.sum(jnp.tanh(x @ w)))(weights)
        return {"shared": shared, "scaled": scaled, "constant": weights, "input": x}

    found, dense = map_examples(function, examples()), jax.vmap(function)(examples())
    assert not any(isinstance(leaf, OuterProducts) for leaf in found.values())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, dense)


@pytest.mark.parametrize("spread", [0.0, 1e-3])
def test_examples_that_resemble_each_other_lose_nothing_to_cancellation(spread):
    exact = moments(jax.vmap(of_one)(examples(spread)))
    found = moments(map_examples(of_one, examples(spread)))

    def check(a, b, mean):
        rounding = N * (1e-6 * jnp.max(jnp.abs(mean))) ** 2
        assert jnp.max(jnp.abs(a - b)) <= 1e-2 * jnp.max(jnp.abs(b)) + rounding

    jax.tree.map(check, found.scatter, exact.scatter, exact.mean)


def test_never_negative():
    products = OuterProducts(jnp.full((1, N, 2), 3.0), jnp.full((1, N, 2), 1e4))
    assert jnp.all(moments(products).scatter == 0)


def test_under_vmap_and_jit():
    # As where several seeds train in one program.
    shifts = jnp.arange(2.0)

    def summary(mapped, shift):
        return moments(mapped(of_one, examples() + shift))

    found = jax.jit(jax.vmap(lambda shift: summary(map_examples, shift)))(shifts)
    dense = jax.vmap(lambda shift: summary(lambda f, x: jax.vmap(f)(x), shift))(shifts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, dense)


def test_a_wide_layer_takes_the_memory_of_its_factors():
    width, n = 128, 256

    def grad(x):
        return jax.grad(lambda w: jnp.sum(jnp.tanh(x @ w)))(jnp.ones((width, width)))

    def bytes_of(mapped):
        program = jax.jit(lambda x: moments(mapped(grad, x)))
        analysis = program.lower(jnp.ones((n, width))).compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    # The products themselves are n·width² floats, 17 MB.
    assert bytes_of(map_examples) < 4e6 < 16e6 < bytes_of(lambda f, x: jax.vmap(f)(x))
