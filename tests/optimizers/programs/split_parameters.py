"""Train with parameters split over both axes of a mesh, and print what differs from one device."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from mekax.optimizers import meka, scale_by_expected_improvement, scale_by_kalman_filter

# As in `data_parallel.py`; and in double precision, so that rounding leaves nothing to excuse.
jax.config.update("jax_cpu_enable_async_dispatch", False)
jax.config.update("jax_enable_x64", True)
STEPS = 4
SPECS = {"w": P("data", "model"), "v": P("model"), "b": P()}
mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
shardings = {name: NamedSharding(mesh, spec) for name, spec in SPECS.items()}
rng = np.random.default_rng(0)
x, y = rng.normal(size=(STEPS, 64, 6)), rng.normal(size=(STEPS, 64))
params = {"w": jnp.ones((6, 4)), "v": jnp.ones(4), "b": jnp.zeros(())}
split_params = jax.device_put(params, shardings)


def assert_split_like_parameters(state):
    """Every array of the shape of a parameter lies where the parameter does, scalars everywhere."""
    expected = {p.shape: p.sharding for p in split_params.values()}
    for leaf in jax.tree.leaves(state):
        assert leaf.shape in expected, leaf.shape
        if leaf.shape:
            assert leaf.sharding.is_equivalent_to(expected[leaf.shape], leaf.ndim), leaf.sharding


for tx in (meka(), scale_by_kalman_filter(), scale_by_expected_improvement()):
    assert_split_like_parameters(tx.init(split_params))

tx = meka(covariance="diagonal")


@jax.jit
def step(params, state, x, y):
    def value_fn(p):
        return jnp.square(jnp.tanh(x @ p["w"]) @ p["v"] + p["b"] - y)

    grads = jax.grad(lambda p: value_fn(p).mean())(params)
    updates, state = tx.update(grads, state, params, value_fn=value_fn)
    return optax.apply_updates(params, updates), state


def trajectory(params, placement=None):
    state = tx.init(params)
    for i in range(STEPS):
        batch = jax.device_put((x[i], y[i]), placement)
        params, state = jax.block_until_ready(step(params, state, *batch))
        if placement is not None:
            assert_split_like_parameters((params, state))
    return params, state


single = trajectory(params)
programs = step._cache_size()
split = trajectory(split_params, NamedSharding(mesh, P("data")))
# As with Optax's own: the counters of a fresh state lie on one device, later on all.
assert step._cache_size() - programs <= 2
differences = jax.tree.map(lambda a, b: float(np.max(np.abs(a - np.asarray(b)))), single, split)
paths = jax.tree_util.tree_leaves_with_path(differences)
print(json.dumps({jax.tree_util.keystr(path): difference for path, difference in paths}))
