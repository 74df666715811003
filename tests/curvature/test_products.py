import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from mekax.curvature import dense_statistics, gradient_and_product, hvp, per_example


def test_product_against_the_dense_hessian(problem):
    loss_fn, params, batch, displacement = problem
    dense = dense_statistics(loss_fn, params, batch, displacement)
    gradient, product = gradient_and_product(per_example(loss_fn, batch), params, displacement)
    np.testing.assert_allclose(ravel_pytree(gradient)[0], dense.gradient, rtol=1e-12)
    np.testing.assert_allclose(ravel_pytree(product)[0], dense.product, rtol=1e-11)


def test_product_against_central_differences_of_gradients(problem):
    loss_fn, params, batch, displacement = problem
    value_fn = per_example(loss_fn, batch, chunk_size=3)
    gradient = jax.grad(lambda p: value_fn(p).mean())
    step = 1e-5

    def shifted(sign):
        return jax.tree.map(lambda p, d: p + sign * step * d, params, displacement)

    difference = jax.tree.map(
        lambda a, b: (a - b) / (2 * step), gradient(shifted(1)), gradient(shifted(-1))
    )
    product = hvp(value_fn, params, displacement)
    np.testing.assert_allclose(
        ravel_pytree(product)[0], ravel_pytree(difference)[0], rtol=1e-7, atol=1e-8
    )


def test_gradient_is_shared_with_the_callers():
    """In one program XLA computes the gradient once: the product costs no further backward pass."""
    rng = np.random.default_rng(0)
    weights = [jnp.asarray(rng.normal(size=(8, 8)), jnp.float32) for _ in range(3)]
    x = jnp.asarray(rng.normal(size=(16, 8)), jnp.float32)

    def value_fn(ws):
        h = x
        for w in ws:
            h = jnp.tanh(h @ w)
        return jnp.sum(h**2, axis=1)

    def mine(ws):
        return gradient_and_product(value_fn, ws, ws)

    def both(ws):
        return jax.grad(lambda p: value_fn(p).mean())(ws), mine(ws)

    def flops(f):
        return jax.jit(f).lower(weights).compile().cost_analysis()["flops"]

    assert flops(both) <= 1.02 * flops(mine)
