import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.experiments.variants.schedule_free_plus import schedule_free_plus

CURVATURES = np.array([1.0, 30.0])


def loss(w):
    return 0.5 * jnp.sum(jnp.asarray(CURVATURES) * w["w"] ** 2)


def trained(steps):
    tx = schedule_free_plus()
    params = {"w": jnp.array([1.0, -2.0])}
    state = tx.init(params)
    path = []
    for _ in range(steps):
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params, value=value)
        params = optax.apply_updates(params, updates)
        path.append(np.concatenate([params["w"], state.x["w"], state.z["w"]]))
    return np.array(path)


def reference(steps):
    """The publication's equations, one number after the other."""
    x = z = y = np.array([1.0, -2.0])
    m = v = np.zeros(2)
    largest = total = 0.0
    path = []
    for k in range(1, steps + 1):
        g = CURVATURES * y
        f = 0.5 * np.sum(CURVATURES * y**2)
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
        gamma = max(0.0, f + 0.9 * g @ (z - x)) / (np.sqrt(np.pi / 2) * np.abs(g).sum())
        largest = max(largest, gamma)
        total += largest**2
        z = z - gamma * (m / (1 - 0.9**k)) / (np.sqrt(v / (1 - 0.95**k)) + 1e-8)
        c = largest**2 / total
        x = (1 - c) * x + c * z
        y = 0.9 * x + 0.1 * z
        path.append(np.concatenate([y, x, z]))
    return np.array(path)


def test_follows_the_published_equations():
    np.testing.assert_allclose(trained(10), reference(10), rtol=1e-4, atol=1e-6)


def test_stands_still_at_a_gradient_of_zero():
    tx, params = schedule_free_plus(), {"w": jnp.zeros(2)}
    updates, _ = tx.update(params, tx.init(params), params, value=0.0)
    np.testing.assert_array_equal(updates["w"], 0)


def test_says_that_it_needs_the_loss():
    tx, params = schedule_free_plus(), {"w": jnp.zeros(2)}
    with pytest.raises(ValueError, match="value=loss"):
        tx.update(params, tx.init(params), params)
