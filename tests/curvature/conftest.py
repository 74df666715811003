import jax
import jax.numpy as jnp
import numpy as np
import pytest


def loss_fn(params, example):
    """A small non-quadratic regression whose Hessians differ between examples."""
    x, y = example
    hidden = jnp.tanh(params["w"] @ x + params["b"])
    return jnp.square(jnp.dot(params["v"], hidden) - y) + 0.1 * jnp.sum(params["v"] ** 4)


@pytest.fixture
def problem(float64):
    """Loss of one example, parameters of three leaves (D = 11), 7 examples, a displacement."""
    rng = np.random.default_rng(0)
    shapes = {"w": (3, 2), "b": (3,), "v": (2 + 1,)}
    draw = {k: jnp.asarray(rng.normal(size=s)) for k, s in shapes.items()}
    displacement = jax.tree.map(lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape)), draw)
    batch = (jnp.asarray(rng.normal(size=(7, 2))), jnp.asarray(rng.normal(size=7)))
    return loss_fn, draw, batch, displacement
