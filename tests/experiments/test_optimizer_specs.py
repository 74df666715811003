import jax
import jax.numpy as jnp
import optax
import pytest
from mekax.experiments.errors import UsageError
from mekax.experiments.optimizer_specs import (
    DEFAULT_RATES,
    KINDS,
    RATE_GRIDS,
    OptimizerSpec,
    build,
    parse,
    parse_all,
)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("meka", OptimizerSpec("meka")),
        ("adameka", OptimizerSpec("adameka")),
        ("adam", OptimizerSpec("adam", 1e-3)),
        ("adam:1e-2", OptimizerSpec("adam", 0.01)),
        ("adamw:.5", OptimizerSpec("adamw", 0.5)),
        ("sgd", OptimizerSpec("sgd", 0.1)),
        ("momentum:0.1", OptimizerSpec("momentum", 0.1)),
    ],
)
def test_parse(text, spec):
    assert parse(text) == spec
    assert parse(spec.label) == spec


@pytest.mark.parametrize("text", ["adam:0", "adam:-1", "adam:", "adam:x", "adam:nan", "adam:inf"])
def test_rate_must_be_a_positive_number(text):
    with pytest.raises(UsageError, match="positive number"):
        parse(text)


def test_no_rate_for_ours():
    with pytest.raises(UsageError, match="without a learning rate"):
        parse("meka:0.1")


@pytest.mark.parametrize(("typed", "meant"), [("mekka", "meka"), ("Adam", "adam"), ("sdg", "sgd")])
def test_did_you_mean(typed, meant):
    with pytest.raises(UsageError, match=f"Did you mean '{meant}'"):
        parse(typed)


def test_repetitions_are_dropped():
    assert [s.label for s in parse_all(["adam", "meka", "adam:1e-3"])] == ["adam:0.001", "meka"]


def test_grids_hold_the_defaults():
    assert RATE_GRIDS.keys() == DEFAULT_RATES.keys()
    for kind, rates in RATE_GRIDS.items():
        assert len(rates) >= 6
        assert DEFAULT_RATES[kind] in rates


@pytest.mark.parametrize("kind", KINDS)
def test_all_are_called_alike(kind):
    params = {"w": jnp.array([1.0, -2.0])}

    def value_fn(params):
        return jnp.sum((params["w"] - jnp.array([[1.0, 1.0], [0.0, 1.0]])) ** 2, axis=-1)

    tx = build(kind, 0.1)
    grads = jax.grad(lambda p: value_fn(p).mean())(params)
    updates, _ = tx.update(grads, tx.init(params), params, value_fn=value_fn)
    after = optax.apply_updates(params, updates)
    assert value_fn(after).mean() < value_fn(params).mean()


def test_rate_is_that_of_the_state():
    params, grads = jnp.array([1.0]), jnp.array([1.0])
    state = build("sgd", 0.25).init(params)
    updates, _ = build("sgd", 1.0).update(grads, state, params)
    assert updates.tolist() == [-0.25]
