"""Bad input: each message says what was expected, what came and what to do."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest
from mekax.optimizers import (
    adameka,
    meka,
    scale_by_expected_improvement,
    scale_by_kalman_filter,
    warm_start,
)

MAKERS = [
    meka,
    adameka,
    scale_by_kalman_filter,
    scale_by_expected_improvement,
    lambda: warm_start(0.1, 2, meka()),
]


@pytest.fixture(params=MAKERS, ids=["meka", "adameka", "kalman", "improvement", "warm_start"])
def tx(request):
    return request.param()


def test_missing_arguments_show_the_line_to_write(tx):
    params = jnp.ones(2)
    state = tx.init(params)
    with pytest.raises(ValueError, match=r"(?s)no value_fn.*value_fn=value_fn"):
        tx.update(params, state, params)
    with pytest.raises(ValueError, match="no params"):
        tx.update(params, state, value_fn=lambda p: jnp.sum(p**2))
    with pytest.raises(ValueError, match="no params and no value_fn"):
        tx.update(params, state)


def test_a_value_instead_of_a_function_is_named(tx):
    params = jnp.ones(2)
    with pytest.raises(TypeError, match="got float"):
        tx.update(params, tx.init(params), params, value_fn=3.0)


def test_wrong_shapes_of_losses_are_named(tx):
    params = jnp.ones(2)
    with pytest.raises(ValueError, match=r"got shape \(2, 2\)"):
        tx.update(params, tx.init(params), params, value_fn=lambda p: p[:, None] * p[None])
    with pytest.raises(TypeError, match="got dtype int32"):
        tx.update(params, tx.init(params), params, value_fn=lambda p: jnp.ones(3, jnp.int32))


def test_parameters_are_checked_at_init(tx):
    with pytest.raises(ValueError, match="empty pytree"):
        tx.init({})
    with pytest.raises(TypeError, match=r"int32 at \['n'\]"):
        tx.init({"w": jnp.ones(2), "n": jnp.ones(2, jnp.int32)})
    with pytest.raises(TypeError, match=r"function at \['f'\].*eqx.filter"):
        tx.init({"w": jnp.ones(2), "f": jnp.tanh})


def test_exact_statistics_ask_for_per_example():
    tx = meka(statistics="exact")
    params = jnp.ones(2)
    with pytest.raises(TypeError, match="per_example"):
        tx.update(params, tx.init(params), params, value_fn=lambda p: p)


@pytest.mark.parametrize("make", [meka, adameka, scale_by_expected_improvement])
def test_unknown_acquisition(make):
    with pytest.raises(ValueError, match="expected_decrease"):
        make(acquisition="ei")


@pytest.mark.parametrize("make", [meka, adameka, scale_by_expected_improvement])
def test_a_learning_rate_is_refused_by_its_name(make):
    with pytest.raises(TypeError, match=r"expected no learning rate, got 0\.001"):
        make(1e-3)


@pytest.mark.parametrize("make", [meka, adameka, scale_by_expected_improvement])
@pytest.mark.parametrize(
    ("cap", "error", "words"),
    [
        (optax.constant_schedule(0.1), TypeError, "inject_hyperparams with a schedule"),
        ("0.1", TypeError, "expected max_step_size to be a number"),
        (-1, ValueError, "above 0, got -1"),
        (float("nan"), ValueError, "above 0, got nan"),
    ],
)
def test_caps_that_are_none_are_refused(make, cap, error, words):
    with pytest.raises(error, match=words):
        make(max_step_size=cap)


def test_unknown_extras_are_swallowed(tx):
    params = jnp.ones(2)
    tx.update(2 * params, tx.init(params), params, value_fn=lambda p: jnp.sum(p**2), loss_scale=3)


def test_masked_parameters_point_to_the_mask_argument(tx):
    params = {"w": jnp.ones(2), "b": jnp.ones(2)}
    masked = optax.masked(tx, {"w": True, "b": False})
    with pytest.raises(ValueError, match="mask="):
        masked.update(
            params, masked.init(params), params, value_fn=lambda p: jnp.sum(p["w"] + p["b"])
        )


def test_losses_with_auxiliary_values_are_named(tx):
    params = jnp.ones(2)
    with pytest.raises(TypeError, match=r"got a tuple.*losses alone"):
        tx.update(params, tx.init(params), params, value_fn=lambda p: (p, jnp.ones((2, 2))))


@pytest.mark.parametrize("make", [meka, adameka, scale_by_kalman_filter])
def test_a_gradient_of_other_parameters_is_named_by_its_leaf(make):
    tx, params = make(), {"w": jnp.ones(2)}
    state = tx.init(params)
    with pytest.raises(ValueError, match=r"got shape \(3,\) at \['w'\].*params has shape \(2,\)"):
        tx.update({"w": jnp.ones(3)}, state, params, value_fn=lambda p: p["w"])
    with pytest.raises(ValueError, match=r"got no leaf at \['w'\]"):
        tx.update({"v": jnp.ones(2)}, state, params, value_fn=lambda p: p["w"])


@pytest.mark.parametrize("make", [meka, adameka, scale_by_expected_improvement])
def test_a_whole_equinox_model_is_told_to_be_filtered(make):
    """Also where only `update` gets it, after an `init` with its arrays."""
    tx, model = make(), eqx.nn.MLP(3, 1, 8, 1, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (16, 3))
    value_fn = lambda m: (jax.vmap(m)(x)[:, 0] - x.sum(1)) ** 2  # noqa: E731
    grads = eqx.filter_grad(lambda m: value_fn(m).mean())(model)
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))
    for call in (
        lambda: tx.init(model),
        lambda: tx.update(grads, state, model, value_fn=value_fn),
    ):
        with pytest.raises(TypeError, match=r"a function at \.activation.*eqx\.filter\(model"):
            call()


@pytest.mark.parametrize("make", [meka, adameka, scale_by_expected_improvement])
def test_a_raw_gradient_of_other_parameters_is_named_too(make):
    tx, params = make(), {"w": jnp.ones(2)}
    wrong = {"w": jnp.ones(1)}  # which would broadcast
    with pytest.raises(ValueError, match=r"got shape \(1,\) at \['w'\]"):
        tx.update(params, tx.init(params), params, grad=wrong, value_fn=lambda p: p["w"])
