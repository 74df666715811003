"""Which decision each part of the belief and of the rule makes: what changes without it.

All variants choose their step from the same state, that of the rule as it is, at every step of a
small noisy training; a decision changes where the step differs by more than a hundredth.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.curvature import LineBelief
from mekax.optimizers import (
    adameka,
    adaptive_trust_region,
    expected_decrease,
    improvement_threshold,
    log_expected_improvement,
    meka,
    metrics,
    newton_trust_region,
    probability_of_improvement,
)

STEPS = 300
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(STEPS, 8, 6)), jnp.float32)
Y = jnp.sin(X.sum(2)) + 0.5 * jnp.asarray(RNG.normal(size=(STEPS, 8)), jnp.float32)
PARAMS = {
    "w": jnp.asarray(0.5 * RNG.normal(size=(6, 8)), jnp.float32),
    "v": jnp.asarray(0.5 * RNG.normal(size=8), jnp.float32),
}
EI, PI, THRESHOLD = (
    log_expected_improvement,
    probability_of_improvement,
    improvement_threshold(0.9),
)
ACQUISITIONS = {
    "expected_improvement": EI,
    "probability_of_improvement": PI,
    "expected_decrease": expected_decrease,
    "improvement_threshold": THRESHOLD,
}
VARIANCES = ("value_variance", "slope_variance", "curvature_variance", "covariance")


def losses(params, batch):
    return (jnp.tanh(batch[0] @ params["w"]) @ params["v"] - batch[1]) ** 2


def without(acquisition, field):
    """The acquisition of a belief that lacks a part."""
    return lambda belief, step: acquisition(
        belief._replace(**{field: jnp.zeros_like(belief.slope)}), step
    )


def region_without_noise(region):
    """A trust region that is not told how uncertain the slope is."""

    def update(state, outcome, observation, belief, *rest):
        belief = belief._replace(slope_variance=jnp.zeros_like(belief.slope))
        return region.update(state, outcome, observation, belief, *rest)

    return region._replace(update=update)


def unbounded(region):
    """A trust region that ends nothing."""
    return region._replace(radius=lambda state: 1e6 * jnp.ones_like(state.radius))


@functools.cache
def changes(make, acquisition, make_region):
    """Share of the steps that change without each part."""
    region = make_region()
    rule = make(acquisition, trust_region=region)
    variants = {f: make(without(acquisition, f), trust_region=region) for f in VARIANCES} | {
        "acquisition": make(expected_decrease, trust_region=region),
        "trust region": make(acquisition, trust_region=unbounded(region)),
        "noise in the trust region": make(acquisition, trust_region=region_without_noise(region)),
    }

    def step(carry, batch):
        params, state = carry
        value_fn = lambda p: losses(p, batch)  # noqa: E731
        value, grads = jax.value_and_grad(lambda p: value_fn(p).mean())(params)

        def update(tx):
            return tx.update(grads, state, params, value=value, grad=grads, value_fn=value_fn)

        updates, new = update(rule)
        others = {name: metrics(update(tx)[1])["step_size"] for name, tx in variants.items()}
        return (optax.apply_updates(params, updates), new), (metrics(new)["step_size"], others)

    run = jax.jit(lambda c: jax.lax.scan(step, c, (X, Y))[1])
    steps, others = jax.device_get(run((PARAMS, rule.init(PARAMS))))
    return {
        name: np.mean(np.abs(other - steps) > 0.01 * np.maximum(steps, other))
        for name, other in others.items()
    }


# Shares of the steps, at least; parts that are not listed decide nothing there.
DECIDES = {
    "adameka": (
        (adameka, EI, adaptive_trust_region),
        {
            "slope_variance": 0.05,
            "acquisition": 0.05,
            "trust region": 0.5,
            "noise in the trust region": 0.03,
        },
    ),
    "meka": (
        (meka, EI, adaptive_trust_region),
        {
            "slope_variance": 0.03,
            "curvature_variance": 0.005,
            "covariance": 0.003,
            "acquisition": 0.03,
            "trust region": 0.5,
        },
    ),
    "published": (
        (meka, PI, newton_trust_region),
        {
            "value_variance": 0.5,
            "slope_variance": 0.3,
            "curvature_variance": 0.1,
            "covariance": 0.1,
            "acquisition": 0.3,
            "trust region": 0.05,
        },
    ),
    "threshold": (
        (adameka, THRESHOLD, adaptive_trust_region),
        {
            "slope_variance": 0.2,
            "covariance": 0.005,
            "acquisition": 0.2,
            "trust region": 0.2,
            "noise in the trust region": 0.02,
        },
    ),
}


@pytest.mark.parametrize("name", DECIDES)
def test_a_part_that_is_taken_away_changes_steps(name):
    program, expected = DECIDES[name]
    found = changes(*program)
    for part, share in found.items():
        if part in expected:
            assert share >= expected[part], f"{part}: {share:.3f} of the steps change"
        else:
            assert share <= 0.01, f"{part}: {share:.3f} of the steps change"


def deaf_to(part):
    """The default trust region, which does not hear a part of what the averages say."""
    region = adaptive_trust_region()

    def update(state, outcome, observation, belief, evidence, *rest):
        said = evidence._replace(**{part: 0 * getattr(evidence, part)})
        return region.update(state, outcome, observation, belief, said, *rest)

    return region._replace(update=update)


@functools.cache
def radius(part=None):
    """The radius after the training."""
    tx = adameka(trust_region=deaf_to(part) if part else None)

    def step(carry, batch):
        params, state = carry
        value_fn = lambda p: losses(p, batch)  # noqa: E731
        grads = jax.grad(lambda p: value_fn(p).mean())(params)
        updates, state = tx.update(grads, state, params, grad=grads, value_fn=value_fn)
        return (optax.apply_updates(params, updates), state), None

    (_, state), _ = jax.jit(lambda c: jax.lax.scan(step, c, (X, Y)))((PARAMS, tx.init(PARAMS)))
    return float(metrics(state)["radius"])


@pytest.mark.parametrize("part", ["difference", "excess"])
def test_what_the_averages_say_moves_the_radius(part):
    assert abs(np.log(radius(part) / radius())) > 0.05


LINE = LineBelief(*map(jnp.float32, (3.0, 0.3, -1.0, 0.2, 1.0, 0.02, 0.01)))
GRID = jnp.linspace(0.001, 4.0, 4000)


def best(acquisition, belief):
    return float(GRID[jnp.argmax(acquisition(belief, GRID))])


# Whether the best step of a line is longer (1) or shorter (−1) without a part; else the same.
ON_A_LINE = {
    "expected_improvement": {"slope_variance": -1, "curvature_variance": -1, "covariance": -1},
    "probability_of_improvement": {
        "value_variance": -1,
        "slope_variance": 1,
        "curvature_variance": 1,
        "covariance": 1,
    },
    "expected_decrease": {},
    "improvement_threshold": {"slope_variance": 1, "curvature_variance": 1, "covariance": 1},
}


@pytest.mark.parametrize("field", VARIANCES)
@pytest.mark.parametrize("name", ACQUISITIONS)
def test_what_a_variance_decides_on_a_line(name, field):
    acquisition = ACQUISITIONS[name]
    whole, rest = (best(a, LINE) for a in (acquisition, without(acquisition, field)))
    assert np.sign(round(rest - whole, 6)) == ON_A_LINE[name].get(field, 0), (whole, rest)


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_the_loss_itself_decides_nothing(name):
    """Its filter is for its variance, and for metrics."""
    acquisition = ACQUISITIONS[name]
    other = LINE._replace(value=jnp.float32(-100.0))
    np.testing.assert_array_equal(acquisition(other, GRID), acquisition(LINE, GRID))
