from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.curvature import per_example
from mekax.optimizers import (
    adameka,
    average_iterates,
    meka,
    scale_by_expected_improvement,
    scale_by_kalman_filter,
    warm_start,
)


class Transformation(NamedTuple):
    """A row of the table over which Optax's contract is tested.

    Attributes:
      make: builds the transformation.
      hyperparams: numeric arguments of `make`, all of which may be injected.
      others: further arguments.
      rate: factor that turns its updates into steps; 1 where they are steps already.
    """

    make: Callable[..., optax.GradientTransformationExtraArgs]
    hyperparams: dict[str, Any]
    others: dict[str, Any]
    rate: float

    def plain(self):
        return self.make(**self.hyperparams, **self.others)

    def injected(self):
        return optax.inject_hyperparams(self.make)(**self.hyperparams, **self.others)

    def step(self, tx, params, state, batch, loss_fn, noise=0.0):
        """One step of the loop of every user; `noise` is added to the gradient alone."""
        value_fn = per_example(loss_fn, batch)
        value, grads = jax.value_and_grad(lambda p: value_fn(p).mean())(params)
        grads = jax.tree.map(lambda g: g + jnp.asarray(noise, g.dtype), grads)
        # Another transformation of a chain might ask for more; ours must swallow it.
        extra_args = {"value": value, "grad": grads, "value_fn": value_fn, "unknown_extra": 1}
        updates, state = tx.update(grads, state, params, **extra_args)
        assert jax.tree.structure(updates) == jax.tree.structure(params)
        updates = jax.tree.map(lambda u: u * jnp.asarray(self.rate, u.dtype), updates)
        return optax.apply_updates(params, updates), state


def _after_adam(max_step_size=None):
    rule = scale_by_expected_improvement(max_step_size=max_step_size)
    return optax.chain(optax.scale_by_adam(), rule)


def _filter_then_rule(learning_rate=0.1, until=3, decay=0.99, seed=0):
    rule = warm_start(learning_rate, until, scale_by_expected_improvement())
    return optax.chain(scale_by_kalman_filter(decay=decay, seed=seed), rule)


def _then_average(max_step_size=None):
    return optax.chain(adameka(max_step_size=max_step_size), average_iterates())


TRANSFORMATIONS = {
    "meka": Transformation(meka, {"max_step_size": 10.0, "decay": 0.9, "seed": 3}, {}, 1.0),
    "adameka": Transformation(
        adameka, {"max_step_size": 10.0, "weight_decay": 1e-3, "curvature_interval": 5}, {}, 1.0
    ),
    "diagonal": Transformation(
        meka, {"decay": 0.9}, {"statistics": "exact", "covariance": "diagonal"}, 1.0
    ),
    "average": Transformation(_then_average, {"max_step_size": 10.0}, {}, 1.0),
    "filter": Transformation(scale_by_kalman_filter, {"decay": 0.9, "seed": 3}, {}, -0.05),
    "rule": Transformation(scale_by_expected_improvement, {"max_step_size": 10.0}, {}, 1.0),
    "warm_start": Transformation(
        warm_start, {"learning_rate": 0.1, "until": 3}, {"adaptive": adameka()}, 1.0
    ),
    "adam+rule": Transformation(_after_adam, {"max_step_size": 10.0}, {}, 1.0),
    "filter+rule": Transformation(
        _filter_then_rule, {"learning_rate": 0.1, "until": 3, "decay": 0.9, "seed": 3}, {}, 1.0
    ),
}


@pytest.fixture
def transformations():
    """The whole table, to vary a row of it."""
    return TRANSFORMATIONS


@pytest.fixture(scope="module", params=TRANSFORMATIONS)
def transformation(request):
    """Every public transformation in turn, and chains of them."""
    return TRANSFORMATIONS[request.param]


@pytest.fixture
def train():
    """The training loop below, as a fixture."""
    return _train


def _train(tx, value_fn, params, batches):
    """Run a jitted loop over stacked batches; return final params, state and mean losses."""
    tx = optax.with_extra_args_support(tx)

    def step(carry, batch):
        params, state = carry

        def losses(p):
            return value_fn(p, batch)

        value, grads = jax.value_and_grad(lambda p: losses(p).mean())(params)
        updates, state = tx.update(grads, state, params, value_fn=losses)
        return (optax.apply_updates(params, updates), state), value

    (params, state), values = jax.jit(lambda c, b: jax.lax.scan(step, c, b))(
        (params, tx.init(params)), batches
    )
    return params, state, np.asarray(values)


@pytest.fixture
def regression():
    """Noisy logistic regression: per-example losses, parameters, 60 stacked batches of 64."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=6)
    x = rng.normal(size=(60, 64, 6)).astype(np.float32)
    y = (x @ truth + rng.normal(size=(60, 64)) > 0).astype(np.float32)

    def losses(params, batch):
        x, y = batch
        logits = x @ params["w"] + params["b"]
        return optax.sigmoid_binary_cross_entropy(logits, y)

    params = {"w": jnp.zeros(6), "b": jnp.zeros(())}
    return losses, params, (jnp.asarray(x), jnp.asarray(y))
