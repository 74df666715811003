import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.experiments import lanes
from mekax.experiments.data_order import batches
from mekax.optimizers import meka

SETTINGS = [{"rate": rate} for rate in (0.1, 0.3, 0.5, 1.0, 5.0)]
BUDGET = lanes.Budget(steps=12, batch_size=4, looks=3, judged=16)


def build(setting, steps):
    rate = optax.linear_schedule(1.0, 0.0, steps)
    return optax.with_extra_args_support(
        optax.chain(optax.scale_by_schedule(rate), optax.scale(-setting["rate"]))
    )


def halved(state, params):
    return jax.tree.map(lambda leaf: leaf / 2, params)


@pytest.fixture
def recorded(parabola):
    places = {lanes.LAST: lambda state, params: params, "halved": halved}
    train = lanes.compile_lanes(parabola, lanes.Method(build, places), BUDGET)
    return train(SETTINGS, (7, 3))  # ten lanes: two groups


def by_hand(parabola, rate, seed):
    init_key, key = jax.random.split(jax.random.key(seed))
    params, losses, looks = parabola.init(init_key), [], []
    for step in range(12):
        batch = {"x": parabola.data["x"][batches(seed, step, 1, 24, 4)[0]]}
        batch_key = jax.random.fold_in(key, step)

        def loss(params, batch=batch, batch_key=batch_key):
            return parabola.losses(params, batch, batch_key).mean()

        value, grads = jax.value_and_grad(loss)(params)
        losses.append(value)
        params = {"w": params["w"] - rate * (1 - step / 12) * grads["w"]}
        if step % 4 == 3:
            looks.append(params["w"])
    return np.array(losses), np.array(looks)


def test_lanes_equal_a_plain_loop(parabola, recorded):
    assert recorded.loss.shape == (10, 12)
    assert recorded.looks.tolist() == [4, 8, 12]
    expected = [(s["rate"], seed) for s in SETTINGS for seed in (7, 3)]
    for lane, (rate, seed) in enumerate(expected):
        losses, looks = by_hand(parabola, rate, seed)
        np.testing.assert_allclose(recorded.loss[lane], losses, rtol=1e-4)
        for place, factor in ((lanes.LAST, 1.0), ("halved", 0.5)):
            measured = recorded.measures[place]
            # The data are ±1 in equal numbers, here as in any even part of them.
            train_loss = 0.5 * ((factor * looks) ** 2 + 1)
            np.testing.assert_allclose(measured["train_loss"][lane], train_loss, rtol=1e-4)
            np.testing.assert_allclose(measured["test_loss"][lane], train_loss, rtol=1e-4)


def test_seeds_are_paired_whatever_the_company(parabola, recorded):
    again = lanes.compile_lanes(parabola, lanes.Method(build), BUDGET)([SETTINGS[1]], (3,))
    np.testing.assert_allclose(again.loss[0], recorded.loss[3], rtol=1e-5)
    first = recorded.loss[:, 0].reshape(5, 2)
    np.testing.assert_allclose(first, np.broadcast_to(first[0], (5, 2)), rtol=1e-6)
    assert first[0, 0] != first[0, 1]


def test_gauges_of_what_knows_itself(parabola):
    method = lanes.Method(lambda setting, steps: meka())
    parts = []
    train = lanes.compile_lanes(parabola, method, BUDGET)
    recorded = train([{}], (0, 1), parts.append)
    assert recorded.gauges["step_size"].shape == (2, 3)
    assert np.all(recorded.gauges["num_adaptations"][:, -1] > 0)
    assert parts == pytest.approx([1 / 3, 2 / 3, 1])


def test_value_and_gradient_are_handed_over(parabola):
    seen = []

    def update(updates, state, params=None, *, value, grad, **extra):
        assert grad is updates
        seen.append(jnp.shape(value))
        return updates, state

    tx = optax.GradientTransformationExtraArgs(lambda params: (), update)
    lanes.compile_lanes(parabola, lanes.Method(lambda setting, steps: tx), BUDGET)([{}], (0,))
    assert set(seen) == {()}
