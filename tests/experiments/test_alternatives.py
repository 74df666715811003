"""What our rule is compared with in ablations: closed forms against textbooks and simulation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.curvature import LineBelief
from mekax.experiments.benchmark import methods
from mekax.experiments.benchmark.alternatives import (
    look_ahead,
    newton_steps,
    step,
    switch_both_ways,
    within_budget,
)
from mekax.optimizers import Outcome, adaptive_trust_region


@pytest.mark.parametrize("name", methods.KNOWN)
def test_every_method_makes_updates(name):
    """Traced only: that all of them can be built and agree with the loop's arguments."""
    rates = (1e-3,) if name in methods.BASELINES else ()
    setting = {k: jnp.float32(v) for k, v in methods.settings(name, rates)[0].items()}
    method = methods.build(name)
    params = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}

    def one_step(params, setting):
        tx = method.build(setting, 100)

        def value_fn(p):
            return jnp.sum((jnp.ones((8, 3)) @ p["w"] + p["b"]) ** 2, axis=1)

        value, grads = jax.value_and_grad(lambda p: value_fn(p).mean())(params)
        updates, state = tx.update(
            grads, tx.init(params), params, value=value, grad=grads, value_fn=value_fn
        )
        return [
            place(state, optax.apply_updates(params, updates)) for place in method.places.values()
        ]

    for there in jax.eval_shape(one_step, params, setting):
        assert jax.tree.map(jnp.shape, there) == {"w": (3, 2), "b": (2,)}


@pytest.mark.parametrize("slope", ["claimed", "shrunk", "regression", "half_batch"])
def test_newton_steps_end_at_the_minimum_without_noise(slope):
    """All corrections are 1 where every example says the same."""
    tx = newton_steps(slope)
    params = jnp.array([1.0, -2.0, 0.5])
    value_fn = lambda p: jnp.sum(p**2) * jnp.ones(4)  # noqa: E731
    grads = jax.grad(lambda p: value_fn(p).mean())(params)
    updates, _ = tx.update(grads, tx.init(params), params, value_fn=value_fn)
    np.testing.assert_allclose(updates, -params, rtol=1e-5)


def line(slope, curvature, slope_variance):
    """A belief about a line of which nothing but the slope is uncertain."""
    return LineBelief(
        value=jnp.float32(0),
        value_variance=jnp.float32(0),
        slope=jnp.float32(slope),
        slope_variance=jnp.float32(slope_variance),
        curvature=jnp.float32(curvature),
        curvature_variance=jnp.float32(0),
        covariance=jnp.float32(0),
    )


def test_looking_one_step_ahead_weighs_the_noise_of_the_slope():
    """The loss after one step α: ½(s²/h)(1 − αh)² + ½ h α² p, least at α = (1/h) s²/(s² + p)."""
    belief = line(-2.0, 4.0, 1.0)
    lengths = jnp.linspace(0.0, 1.0, 100_001)
    best = float(lengths[jnp.argmax(look_ahead(1)(belief, lengths))])
    assert best == pytest.approx(2.0 / 4.0 * 4 / 5, abs=1e-3)


def test_looking_ahead_agrees_with_simulation():
    a, h, p, steps, size = 1.0, 2.0, 0.5, 5, 0.3
    rng = np.random.default_rng(0)
    x = np.full(400_000, a / h)
    for _ in range(steps):
        x = x - size * (h * x + np.sqrt(p) * rng.normal(size=x.size))
    expected = float(look_ahead(steps)(line(-a, h, p), jnp.float32(size * a)))
    assert -expected == pytest.approx(0.5 * h * np.mean(x**2), rel=0.01)


def test_a_budget_ends_at_its_end():
    """Both learn the same, and what is left of the budget multiplies the radius."""
    free, bound = rules = (adaptive_trust_region(), within_budget(adaptive_trust_region(), 4))
    states = [rule.init(jnp.float32) for rule in rules]
    ahead, seen, parts = line(-1.0, 0.0, 0.0), line(0.0, 1.0, 0.0), []
    for outcome in (Outcome.NONE, *4 * [Outcome.TAKEN]):
        states = [
            rule.update(state, jnp.int32(outcome), seen, ahead, jnp.float32(1), jnp.float32(10))
            for rule, state in zip(rules, states, strict=True)
        ]
        parts.append(bound.radius(states[1]) / free.radius(states[0]))
    np.testing.assert_allclose(parts, [1, 0.75, 0.5, 0.25, 1e-3], rtol=1e-5)


def test_switches_both_ways():
    """Fixed steps wherever the criterion fails, ours wherever it holds."""
    tx = switch_both_ways(0.01, lambda known: known["slope"] < 0, step())
    params = jnp.array([1.0])
    value_fn = lambda p: jnp.sum(p**2)  # noqa: E731
    gradient = 2 * params
    updates, _ = tx.update(gradient, tx.init(params), params, value_fn=value_fn)
    np.testing.assert_allclose(updates, [-0.3], rtol=1e-4)  # 0.3 of the Newton step
    tx = switch_both_ways(0.01, lambda known: known["slope"] > 0, step())
    updates, _ = tx.update(gradient, tx.init(params), params, value_fn=value_fn)
    np.testing.assert_allclose(updates, [-0.02], rtol=1e-4)
