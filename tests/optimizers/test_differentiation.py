"""Losses that cannot be differentiated twice train as they are; a choice that fails says so."""

import itertools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import io_callback
from mekax.optimizers import (
    adameka,
    meka,
    metrics,
    scale_by_expected_improvement,
    scale_by_kalman_filter,
)

MODES = ("auto", "forward", "reverse", "differences")  # as metrics count them
X = jax.random.normal(jax.random.key(0), (32, 5))
MAKERS = {
    "meka": meka,
    "adameka": adameka,
    "filter+rule": lambda **options: optax.chain(
        scale_by_kalman_filter(**options), scale_by_expected_improvement(**options)
    ),
}


@jax.custom_vjp
def reverse_only(z):
    """A sine without a forward-mode rule, as in many fused kernels."""
    return jnp.sin(z)


reverse_only.defvjp(lambda z: (jnp.sin(z), z), lambda z, g: (g * jnp.cos(z),))


def on_host(callback):
    """A sine of the host with a gradient and no second derivative, as an external solver."""

    def call(function, z):
        evaluate = lambda z: function(np.asarray(z))  # noqa: E731
        shape = jax.ShapeDtypeStruct(z.shape, z.dtype)
        options = {"vmap_method": "expand_dims"} if callback is jax.pure_callback else {}
        return callback(evaluate, shape, z, **options)

    @jax.custom_jvp
    def sine(z):
        return call(np.sin, z)

    @sine.defjvp
    def _(primals, tangents):
        return sine(*primals), call(np.cos, *primals) * tangents[0]

    return sine


SINES = {
    "pure_callback": on_host(jax.pure_callback),
    "io_callback": on_host(io_callback),
    "custom_vjp": reverse_only,
}


def losses_of(sine):
    return lambda w: (sine(X @ w) - jnp.sin(X @ jnp.ones(5))) ** 2


def solve(params, y):
    """An equation by Diffrax with its default adjoint."""
    return diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, p: jnp.tanh(p @ y)),
        diffrax.Tsit5(),
        0.0,
        1.0,
        0.5,
        y,
        params,
        saveat=diffrax.SaveAt(ts=jnp.array([0.5, 1.0])),
        max_steps=4,
    ).ys


Y = jax.random.normal(jax.random.key(1), (4, 2))
TRUE = jax.vmap(lambda y: solve(jnp.array([[0.0, 1.0], [-1.0, 0.0]]), y))(Y)
PROBLEMS = {name: (losses_of(sine), 0.7 * jnp.ones(5)) for name, sine in SINES.items()} | {
    "diffrax": (
        lambda p: jnp.mean((jax.vmap(lambda y: solve(p, y))(Y) - TRUE) ** 2, (1, 2)),
        jnp.zeros((2, 2)),
    )
}


def step_of(tx, value_fn):
    @jax.jit
    def step(params, state):
        grads = jax.grad(lambda p: value_fn(p).mean())(params)
        updates, state = tx.update(grads, state, params, grad=grads, value_fn=value_fn)
        return optax.apply_updates(params, updates), state

    return step


@pytest.mark.parametrize(
    ("make", "problem"),
    [*itertools.product(["adameka", "meka"], SINES), ("adameka", "diffrax")],
)
def test_trains_by_default(make, problem):
    value_fn, params = PROBLEMS[problem]
    tx = MAKERS[make]()
    step, state, before = step_of(tx, value_fn), tx.init(params), value_fn(params).mean()
    for _ in range(60):
        params, state = step(params, state)
    assert value_fn(params).mean() < 0.05 * before
    assert MODES[int(metrics(state)["differentiation"])] == "differences"
    assert metrics(state)["num_rejected"] == 0


def test_forward_mode_is_taken_where_it_works():
    value_fn, params = losses_of(jnp.sin), jnp.zeros(5)
    for tx in (adameka(), meka()):
        _, state = step_of(tx, value_fn)(params, tx.init(params))
        assert MODES[int(metrics(state)["differentiation"])] == "forward"


CANNOT = [("custom_vjp", "forward")]
CANNOT += [(name, mode) for name in ("pure_callback", "io_callback") for mode in MODES[1:3]]


@pytest.mark.parametrize(
    ("make", "problem", "mode"),
    [
        *((make, *case) for make in MAKERS for case in CANNOT),
        ("adameka", "diffrax", "forward"),
        ("adameka", "diffrax", "reverse"),
    ],
)
def test_a_choice_that_cannot_work_gets_one_message(make, problem, mode):
    value_fn, params = PROBLEMS[problem]
    tx = MAKERS[make](differentiation=mode)
    with pytest.raises(TypeError, match="differentiation='differences'") as caught:
        step_of(tx, value_fn)(params, tx.init(params))
    assert str(caught.value).count("mekax:") == 1
    assert f"differentiation='{mode}'" in str(caught.value)


@pytest.mark.parametrize("problem", SINES)
def test_an_explicit_choice_that_works_trains(problem):
    value_fn, params = PROBLEMS[problem]
    tx = adameka(differentiation="differences")
    step, state, before = step_of(tx, value_fn), tx.init(params), value_fn(params).mean()
    for _ in range(30):
        params, state = step(params, state)
    assert value_fn(params).mean() < 0.5 * before


@pytest.mark.parametrize("mode", ["auto", "reverse", "differences"])
def test_the_optimizer_takes_the_same_steps_in_float32(mode):
    def values(sine, tx):
        value_fn = losses_of(sine)

        def step(carry, _):
            p, state = carry
            grads = jax.grad(lambda q: value_fn(q).mean())(p)
            updates, state = tx.update(grads, state, p, value_fn=value_fn)
            return (optax.apply_updates(p, updates), state), value_fn(p).mean()

        start = (0.7 * jnp.ones(5), tx.init(jnp.ones(5)))
        return np.asarray(jax.jit(lambda c: jax.lax.scan(step, c, length=20))(start)[1])

    truth = values(jnp.sin, meka())
    assert truth[-1] < 0.5 * truth[0]
    found = values(reverse_only, meka(differentiation=mode))
    tolerance = 1e-3 if mode == "reverse" else 0.1
    np.testing.assert_allclose(found, truth, rtol=tolerance, atol=1e-3)


@pytest.mark.parametrize(
    "make", [meka, adameka, scale_by_kalman_filter, scale_by_expected_improvement]
)
def test_unknown_modes_are_named(make):
    with pytest.raises(ValueError, match="'differences'"):
        make(differentiation="backward")
