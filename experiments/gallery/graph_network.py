"""A graph network that assigns the members of a karate club to its two teachers.

Modeled on Jraph's example `zacharys_karate_club.py`, at its size: adam(1e-2), 30 steps, two graph
convolutions, 5 hidden features; the two teachers are the only members whose side is known. The loss
has no noise: it is handed to `adameka` as a scalar. The graph: Zachary (1977), 34 members, 78 ties.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .program import Program, begin

MEMBERS = 34
TIES = {  # of each member, to those with lower numbers
    **{1: (0,), 2: (0, 1), 3: (0, 1, 2), 4: (0,), 5: (0,), 6: (0, 4, 5), 7: (0, 1, 2, 3)},
    **{8: (0, 2), 9: (2,), 10: (0, 4, 5), 11: (0,), 12: (0, 3), 13: (0, 1, 2, 3), 16: (5, 6)},
    **{17: (0, 1), 19: (0, 1), 21: (0, 1), 25: (23, 24), 27: (2, 23, 24), 28: (2,)},
    **{29: (23, 26), 30: (1, 8), 31: (0, 24, 25, 28)},
    32: (2, 8, 14, 15, 18, 20, 22, 23, 29, 30, 31),
    33: (8, 9, 13, 14, 15, 18, 19, 20, 22, 23, 26, 27, 28, 29, 30, 31, 32),
}


def _propagation():
    """The matrix D^−½ (A + I) D^−½ of the graph, (MEMBERS, MEMBERS)."""
    joined = np.eye(MEMBERS)
    for member, others in TIES.items():
        joined[member, others] = joined[others, member] = 1
    degree = joined.sum(axis=1)
    return jnp.asarray(joined / np.sqrt(degree[:, None] * degree), jnp.float32)


def _surprise(params, graph):
    """Negative log probability of the two teachers' own sides."""
    hidden = jax.nn.relu(graph @ params["w1"] + params["b1"])  # the features are one-hot
    log_prob = jax.nn.log_softmax(graph @ (hidden @ params["w2"] + params["b2"]))
    return -(log_prob[0, 0] + log_prob[MEMBERS - 1, 1])


def theirs(tx, carry, graph):
    params, state = carry

    def loss_fn(params):
        return _surprise(params, graph)

    loss, grads = jax.value_and_grad(loss_fn)(params)
    updates, state = tx.update(grads, state)
    return (optax.apply_updates(params, updates), state), loss


def ours(tx, carry, graph):
    params, state = carry

    def loss_fn(params):
        return _surprise(params, graph)

    loss, grads = jax.value_and_grad(loss_fn)(params)
    updates, state = tx.update(grads, state, params, value=loss, value_fn=loss_fn)
    return (optax.apply_updates(params, updates), state), loss


def _init(key):
    first, second = jax.random.split(key)
    glorot = jax.nn.initializers.lecun_normal()
    w1, w2 = glorot(first, (MEMBERS, 5)), glorot(second, (5, 2))
    return {"w1": w1, "b1": jnp.zeros(5), "w2": w2, "b2": jnp.zeros(2)}


def program() -> Program:
    graph = _propagation()
    return Program(
        project="Jraph",
        url="https://github.com/google-deepmind/jraph/blob/master/jraph/examples/"
        "zacharys_karate_club.py",
        setting="adam(1e-2)",
        optimizer=lambda steps: optax.adam(1e-2),
        published_steps=30,
        steps=30,
        quick=10,
        start=begin(_init),
        batch=lambda key: graph,
        theirs=theirs,
        ours=ours,
        judge=lambda params, carry: _surprise(params, graph),
        judged="train loss, nats",
    )
