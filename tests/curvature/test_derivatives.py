"""Products against dense matrices; the ways to differentiate along a direction agree."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback
from jax.flatten_util import ravel_pytree
from mekax.curvature import (
    directional_derivatives,
    exact,
    gradient_and_product,
    hvp,
    observe,
    per_example,
    sketched,
)

from .dense import dense_statistics


@jax.custom_vjp
def reverse_only(x):
    """A sine whose forward-mode derivative is unknown, as in many fused kernels."""
    return jnp.sin(x)


reverse_only.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))


def host_sine(callback):
    """A sine of the host with a gradient and no second derivative, as an external solver."""

    def on_host(function, x):
        call = lambda y: np.asarray(function(np.asarray(y)), y.dtype)  # noqa: E731
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        if callback is jax.pure_callback:
            return callback(call, shape, x, vmap_method="expand_dims")
        return callback(call, shape, x)

    @jax.custom_jvp
    def sine(x):
        return on_host(np.sin, x)

    @sine.defjvp
    def _(primals, tangents):
        return sine(*primals), on_host(np.cos, *primals) * tangents[0]

    return sine


WITHOUT_RULES = {
    "custom_vjp": reverse_only,
    "pure_callback": host_sine(jax.pure_callback),
    "io_callback": host_sine(io_callback),
}


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


def model(activation):
    rng = np.random.default_rng(0)
    batch = (jnp.asarray(rng.normal(size=(6, 3))), jnp.asarray(rng.normal(size=6)))
    params = {"w": jnp.asarray(rng.normal(size=(4, 3))), "v": jnp.asarray(rng.normal(size=4))}
    direction = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), params)

    def loss(p, example):
        x, y = example
        return jnp.square(jnp.dot(p["v"], activation(p["w"] @ x)) - y)

    return per_example(loss, batch), params, direction


TOLERANCES = {"reverse": 1e-10, "differences": 1e-5, "auto": 1e-5}


@pytest.mark.parametrize("mode", TOLERANCES)
@pytest.mark.parametrize("covariance", ["scalar", "diagonal"])
def test_statistics_without_forward_rules(float64, mode, covariance):
    truth_fn, params, direction = model(jnp.sin)
    value_fn, _, _ = model(reverse_only)
    key = jax.random.key(0)
    for measure in (
        lambda f, m: observe(f, params, direction, m),
        lambda f, m: gradient_and_product(f, params, direction, m),
        lambda f, m: sketched(f, params, direction, key, covariance, m),
    ):
        truth = flat(jax.jit(lambda measure=measure: measure(truth_fn, "forward"))())
        found = flat(jax.jit(lambda measure=measure: measure(value_fn, mode))())
        np.testing.assert_allclose(found, truth, rtol=TOLERANCES[mode], atol=TOLERANCES[mode])


@pytest.mark.parametrize("mode", TOLERANCES)
def test_zero_directions_are_no_trouble(mode):
    value_fn, params, direction = model(reverse_only)
    zero = jax.tree.map(jnp.zeros_like, direction)
    stats = observe(value_fn, params, zero, mode)
    assert np.all(np.isfinite(flat(stats)))
    assert float(stats.slope) == float(stats.curvature) == 0.0


def test_other_errors_of_the_model_pass_unchanged():
    def broken(params):
        raise TypeError("the user's own")

    with pytest.raises(TypeError, match="the user's own"):
        observe(broken, jnp.ones(2), jnp.ones(2))


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


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize(
    ("make", "mode"),
    [
        ("custom_vjp", "forward"),
        *itertools.product(["pure_callback", "io_callback"], ["forward", "reverse"]),
    ],
)
def test_a_mode_that_cannot_work_names_the_one_that_does(make, mode, jit):
    value_fn, params, direction = model(WITHOUT_RULES[make])
    measures = [
        lambda: observe(value_fn, params, direction, mode),
        lambda: directional_derivatives(value_fn, params, direction, 2, mode),
        lambda: sketched(value_fn, params, direction, jax.random.key(0), "scalar", mode),
    ]
    if make != "custom_vjp":  # whose gradient can be differentiated forward
        measures += [
            lambda: gradient_and_product(value_fn, params, direction, mode),
            lambda: sketched(value_fn, params, direction, jax.random.key(0), "diagonal", mode),
            lambda: exact(value_fn, params, direction, "scalar", mode),
        ]
    for measure in measures:
        with pytest.raises(TypeError, match="differentiation='differences'") as caught:
            jax.jit(measure)() if jit else measure()
        assert str(caught.value).count("mekax:") == 1


@pytest.mark.parametrize("order", [1, 2])
def test_auto_takes_differences_under_jit(float64, order):
    truth_fn, params, direction = model(jnp.sin)
    for make in WITHOUT_RULES:
        value_fn, _, _ = model(WITHOUT_RULES[make])
        found, truth = (
            jax.jit(lambda f=f: directional_derivatives(f, params, direction, order))()
            for f in (value_fn, truth_fn)
        )
        np.testing.assert_allclose(found, truth, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make", ["pure_callback", "io_callback"])
def test_auto_takes_differences_where_nothing_else_works(float64, make):
    truth_fn, params, direction = model(jnp.sin)
    value_fn, _, _ = model(WITHOUT_RULES[make])
    found = flat(observe(value_fn, params, direction))
    np.testing.assert_allclose(found, flat(observe(truth_fn, params, direction)), rtol=1e-4)


def test_unknown_modes_are_named():
    for measure in (observe, gradient_and_product, hvp):
        with pytest.raises(ValueError, match="'differences'"):
            measure(lambda w: w**2, jnp.ones(2), jnp.ones(2), differentiation="backward")
