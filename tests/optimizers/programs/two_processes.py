"""One of two processes that train together: `two_processes.py RANK PORT`; prints the parameters."""

import json
import sys

import jax

rank, port = int(sys.argv[1]), sys.argv[2]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=rank)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from jax.sharding import AxisType, NamedSharding  # noqa: E402
from jax.sharding import PartitionSpec as P  # noqa: E402
from mekax.optimizers import meka  # noqa: E402

mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
rng = np.random.default_rng(0)
tx = meka()


@jax.jit
def step(params, state, batch):
    def value_fn(p):
        return jnp.square(jnp.tanh(batch @ p) - 0.5)

    grads = jax.grad(lambda p: value_fn(p).mean())(params)
    updates, state = tx.update(grads, state, params, value_fn=value_fn)
    return optax.apply_updates(params, updates), state


def place(array, spec):
    sharding = NamedSharding(mesh, spec)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


params = place(np.ones(4, np.float32), P())
state = jax.jit(tx.init)(params)
for _ in range(5):
    batch = rng.normal(size=(32, 4)).astype(np.float32)
    params, state = step(params, state, place(batch, P("data")))
print(json.dumps([jax.device_count(), np.asarray(params).tolist()]))
