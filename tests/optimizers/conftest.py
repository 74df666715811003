import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest


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
