"""Loops of others: `optimistix`, Flax's `nnx.Optimizer` and linen's `TrainState`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix
import pytest
from flax import linen, nnx
from flax.training import train_state
from mekax.optimizers import (
    adameka,
    meka,
    metrics,
    scale_by_expected_improvement,
    scale_by_kalman_filter,
    warm_start,
)

MAKERS = {
    "meka": meka,
    "adameka": adameka,
    "warm_start": lambda: warm_start(0.05, 5, adameka()),
    "adam+rule": lambda: optax.chain(optax.scale_by_adam(), scale_by_expected_improvement()),
    "filter+rule": lambda: optax.chain(
        scale_by_kalman_filter(), scale_by_expected_improvement("expected_improvement")
    ),
}
X = jnp.asarray(np.random.default_rng(0).normal(size=(32, 3)), jnp.float32)
Y = X @ jnp.array([1.0, -2.0, 0.5]) + 1


@pytest.mark.parametrize("make", MAKERS)
def test_optimistix_passes_the_scalar_objective(make):
    solver = optimistix.OptaxMinimiser(MAKERS[make](), rtol=1e-5, atol=1e-5)

    def objective(params, scale):
        return jnp.mean(scale * (X @ params["w"] + params["b"] - Y) ** 2)

    solution = optimistix.minimise(
        objective, solver, {"w": jnp.zeros(3), "b": jnp.zeros(())}, args=2.0, max_steps=500
    )
    np.testing.assert_allclose(solution.value["w"], [1.0, -2.0, 0.5], atol=3e-2)
    np.testing.assert_allclose(solution.value["b"], 1.0, atol=3e-2)


@pytest.mark.parametrize("make", ["meka", "filter+rule"])
def test_nnx_optimizer_passes_extra_arguments(make):
    model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, MAKERS[make](), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x, y):
        graph, params, rest = nnx.split(model, nnx.Param, ...)

        def value_fn(params):
            return (nnx.merge(graph, params, rest)(x)[:, 0] - y) ** 2

        value, grads = jax.value_and_grad(lambda p: value_fn(p).mean())(params)
        optimizer.update(model, grads, value_fn=value_fn)
        return value

    values = [float(step(model, optimizer, X, Y)) for _ in range(40)]
    assert values[-1] < 0.05 * values[0]
    state = nnx.as_pure(nnx.state(optimizer))
    assert int(state["step"]) == 40
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state["opt_state"]))


def test_linen_train_state_holds_the_optimizer():
    """`apply_gradients` passes no extra arguments on, so the update is written out."""
    model = linen.Dense(1)
    state = train_state.TrainState.create(
        apply_fn=model.apply, params=model.init(jax.random.key(0), X)["params"], tx=meka()
    )

    @jax.jit
    def step(state, x, y):
        def value_fn(params):
            return (state.apply_fn({"params": params}, x)[:, 0] - y) ** 2

        grads = jax.grad(lambda p: value_fn(p).mean())(state.params)
        updates, opt_state = state.tx.update(
            grads, state.opt_state, state.params, value_fn=value_fn
        )
        params = optax.apply_updates(state.params, updates)
        return state.replace(step=state.step + 1, params=params, opt_state=opt_state)

    for _ in range(40):
        state = step(state, X, Y)
    assert int(state.step) == 40
    assert int(metrics(state.opt_state)["num_rejected"]) == 0
    np.testing.assert_allclose(state.params["kernel"][:, 0], [1.0, -2.0, 0.5], atol=3e-2)
    with pytest.raises(ValueError, match="value_fn=value_fn"):
        state.apply_gradients(grads=state.params)


def test_flatten_says_what_to_pass():
    params = {"w": jnp.zeros(3), "b": jnp.zeros(())}
    tx = optax.flatten(adameka())
    with pytest.raises(ValueError, match=r"inside optax\.flatten leave out grad="):
        tx.update(params, tx.init(params), params, grad=params, value_fn=lambda p: p["b"] ** 2)
