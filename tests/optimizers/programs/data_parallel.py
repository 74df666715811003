"""Train on 1 device and on 8 in every supported way, and print the largest difference of each."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from mekax.optimizers import adameka, meka, metrics

# Eight devices share the threads of the host: with several programs in flight on two cores, the
# collectives of one can wait for threads that the other holds.
jax.config.update("jax_cpu_enable_async_dispatch", False)
STEPS = 5
mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
rng = np.random.default_rng(0)
batches = [
    (
        jnp.asarray(rng.normal(size=(64, 5)), jnp.float32),
        jnp.asarray(rng.normal(size=64), jnp.float32),
    )
    for _ in range(STEPS)
]
params = {"w": jnp.ones((5, 3)), "v": jnp.ones(3)}


def losses(p, batch):
    x, y = batch
    return jnp.square(jnp.tanh(x @ p["w"]) @ p["v"] - y)


def step(tx, p, state, batch, mean=lambda x: x, average=lambda g: g):
    def value_fn(q):
        return losses(q, batch)

    grads = average(jax.grad(lambda q: mean(value_fn(q).mean()))(p))
    updates, state = tx.update(grads, state, p, value_fn=value_fn)
    return optax.apply_updates(p, updates), state


def over_axis(x):
    return jax.lax.pmean(x, "data")


def trajectory(advance, tx, place=lambda batch: batch):
    p, state = params, tx.init(params)
    for batch in batches:
        p, state = jax.block_until_ready(advance(p, state, jax.block_until_ready(place(batch))))
    known = metrics(state)
    return np.concatenate(
        [np.ravel(x) for x in (p["w"], p["v"], known["loss_std"], known["radius"])]
    )


def mapped(tx, check_vma):
    how = {"mean": over_axis} if check_vma else {"average": over_axis}
    return jax.jit(
        jax.shard_map(
            lambda p, s, b: step(tx, p, s, b, **how),
            mesh=mesh,
            in_specs=(P(), P(), P("data")),
            out_specs=P(),
            check_vma=check_vma,
        )
    )


found = {}
for name, make, options in (
    ("meka", meka, {}),
    ("adameka", adameka, {}),
    ("meka per leaf", meka, {"covariance": "per_leaf"}),
):
    tx, split = make(**options), make(axis_name="data", **options)
    single = jax.jit(lambda p, s, b, tx=tx: step(tx, p, s, b))
    alone = trajectory(single, tx)
    sharding = NamedSharding(mesh, P("data"))
    ways = {
        "jit": trajectory(single, tx, lambda b: jax.device_put(b, sharding)),  # noqa: B023
        "shard_map": trajectory(mapped(split, True), split),
        "shard_map, unchecked": trajectory(mapped(split, False), split),
    }
    found |= {f"{name}, {way}": float(np.abs(x - alone).max()) for way, x in ways.items()}
print(json.dumps(found))
