"""The ways to differentiate along a direction agree; the one that fails names the others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from mekax.curvature import directional, gradient_and_product, per_example, sketched
from mekax.optimizers import adameka, meka, scale_by_expected_improvement, scale_by_kalman_filter


@jax.custom_vjp
def reverse_only(x):
    """A sine whose forward-mode derivative is unknown, as in many fused kernels."""
    return jnp.sin(x)


reverse_only.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))


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


TOLERANCES = {"reverse": 1e-10, "differences": 1e-5}


@pytest.mark.parametrize("mode", TOLERANCES)
@pytest.mark.parametrize("covariance", ["scalar", "diagonal"])
def test_statistics_without_forward_rules(float64, mode, covariance):
    truth_fn, params, direction = model(jnp.sin)
    value_fn, _, _ = model(reverse_only)
    key = jax.random.key(0)
    for measure in (
        lambda f, m: directional(f, params, direction, m),
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
    stats = directional(value_fn, params, zero, mode)
    assert np.all(np.isfinite(flat(stats)))
    assert float(stats.slope) == float(stats.curvature) == 0.0


@pytest.mark.parametrize(
    "make", [meka, adameka, scale_by_kalman_filter, scale_by_expected_improvement]
)
def test_forward_mode_names_the_argument_to_pass(make):
    value_fn, params, _ = model(reverse_only)
    grads = jax.grad(lambda p: value_fn(p).mean())(params)
    tx = make()
    with pytest.raises(TypeError, match="differentiation='reverse'"):
        tx.update(grads, tx.init(params), params, value_fn=value_fn)
    with pytest.raises(ValueError, match="'differences'"):
        make(differentiation="backward")


@pytest.mark.parametrize("mode", TOLERANCES)
def test_the_optimizer_takes_the_same_steps_in_float32(mode):
    truth_fn, params, _ = model(jnp.sin)
    value_fn, _, _ = model(reverse_only)
    ends = []
    for f, tx in ((truth_fn, meka()), (value_fn, meka(differentiation=mode))):

        def step(carry, _, f=f, tx=tx):
            p, state = carry
            grads = jax.grad(lambda q: f(q).mean())(p)
            updates, state = tx.update(grads, state, p, value_fn=f)
            return (jax.tree.map(jnp.add, p, updates), state), f(p).mean()

        _, values = jax.jit(lambda c, step=step: jax.lax.scan(step, c, length=20))(
            (params, tx.init(params))
        )
        ends.append(np.asarray(values))
    assert ends[0][-1] < 0.5 * ends[0][0]
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-3 if mode == "reverse" else 0.1, atol=1e-3)


def test_other_errors_of_the_model_pass_unchanged():
    def broken(params):
        raise TypeError("the user's own")

    with pytest.raises(TypeError, match="the user's own"):
        directional(broken, jnp.ones(2), jnp.ones(2))
