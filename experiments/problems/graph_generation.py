"""Generating graphs a block of nodes at a time, by a graph attention network.

    p(A | n) = ∏ₜ Σₖ αₜₖ ∏ᵢⱼ Bernoulli(Aᵢⱼ; θₜₖᵢⱼ),    i in block t, j < i

At block t a network passes messages along the edges known so far, and from every node of the block
to all that there are: h ← GRU(h, Σⱼ aᵢⱼ f(hᵢ − hⱼ)) with attention a. Its last states give the
probabilities θ of the edges of the block and the weights α of a mixture, so that the edges of a
block depend on each other. The number of nodes n is given, the order of the nodes is fixed, and
the likelihood is exact.

R. Liao et al., *Efficient Graph Generation with Graph Recurrent Attention Networks* (2019),
arXiv:1910.00760, sections 2.2 and 2.3.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ..models import SmoothMLP
from ..problem import Problem, PyTree, Source
from .common import deterministic
from .graph_atlas import NODES, Graphs, atlas

_DRAWN = 12  # graphs in each half of the picture

Mixture = tuple[jax.Array, jax.Array]  # log weights (k,), logits of edges (n, n, k)


class GraphAttention(nn.Module):
    """The network that tells the edges of a block from those of the nodes before.

    Attributes:
      width: of the states.
      rounds: of messages.
      components: of the mixture.
      block: nodes at a time.
    """

    width: int
    rounds: int
    components: int
    block: int

    @nn.compact
    def __call__(self, edges: jax.Array, nodes: jax.Array, start: jax.Array) -> Mixture:
        """The mixture of one block.

        Args:
          edges: those known, 0 or 1, symmetric, shape (n, n); the others are not looked at.
          nodes: how many of the n there are.
          start: the first node of the block.
        """
        index = jnp.arange(len(edges))
        old, there = index < start, (index < start + self.block) & (index < nodes)
        fresh = there & ~old
        known = jnp.where(old[:, None] & old, edges, 0)
        # Old nodes along edges, new ones with all: the place of a new one tells it from the others.
        pairs = jnp.where(fresh[:, None] | fresh, 1, known) * (there[:, None] & there)
        pairs = pairs * (1 - jnp.eye(len(edges), dtype=edges.dtype))
        place = (index[:, None] == start + jnp.arange(self.block)) & fresh[:, None]
        state = nn.Dense(self.width)(jnp.tril(known)) * old[:, None]
        for _ in range(self.rounds):
            marked = jnp.concatenate([state, place.astype(state.dtype)], axis=1)
            message = SmoothMLP((self.width,), self.width)(_differences(state))
            weight = nn.sigmoid(SmoothMLP((self.width,), 1)(_differences(marked)))
            received = jnp.sum(pairs[..., None] * weight * message, axis=1)
            state, _ = nn.GRUCell(self.width)(state, received)
        asked = _asked(len(edges), nodes, start, self.block)[..., None]
        difference = _differences(state)
        logits = SmoothMLP((self.width,), self.components)(difference)
        votes = SmoothMLP((self.width,), self.components)(difference)
        return nn.log_softmax(jnp.sum(asked * votes, axis=(0, 1))), logits


def quick(name: str, source: Source) -> Problem:
    del source  # the data come with NetworkX
    network = GraphAttention(width=16, rounds=2, components=4, block=2)
    return generation(name, atlas(), network, batch_size=64, epochs=30)


def large(name: str, source: Source) -> Problem:
    del source
    network = GraphAttention(width=128, rounds=7, components=20, block=1)
    return generation(name, atlas(), network, batch_size=64, epochs=300)


def generation(
    name: str,
    graphs: tuple[Graphs, Graphs],
    network: GraphAttention,
    *,
    batch_size: int,
    epochs: int,
) -> Problem:
    """Make the problem of learning to generate graphs.

    The loss of a graph is −log p(A | n), in nats. Measured are it and the `edge_error`, the part of
    pairs of nodes of which the likelier, edge or none given the blocks before, is wrong.

    Args:
      name: of the problem.
      graphs: to learn from and to judge by.
      network: what is to be learned.
      batch_size: default batch size.
      epochs: default number of epochs.
    """

    def init(key: jax.Array) -> PyTree:
        return network.init(key, jnp.zeros((NODES, NODES)), jnp.asarray(NODES), jnp.asarray(0))

    def of_one(params: PyTree, graph: PyTree) -> tuple[jax.Array, jax.Array]:
        return log_probability(network, params, graph["edges"], graph["nodes"])

    def losses(params: PyTree, batch: PyTree) -> jax.Array:
        return -jax.vmap(partial(of_one, params))(batch)[0]

    def measure(params: PyTree, batch: PyTree) -> dict[str, jax.Array]:
        value, error = jax.vmap(partial(of_one, params))(batch)
        return {"loss": -value, "edge_error": error}

    def plot(params: PyTree, path: Path) -> None:
        keys = jax.random.split(jax.random.key(0), _DRAWN)
        nodes = jnp.asarray(graphs[1].nodes[:_DRAWN])
        drawn = jax.jit(jax.vmap(partial(sample, network, params)))(nodes, keys)
        _draw(name, Graphs(np.asarray(nodes), np.asarray(drawn)), graphs[1], path)

    one, several = deterministic(losses)
    train, test = (
        {"nodes": jnp.asarray(part.nodes), "edges": jnp.asarray(part.edges)} for part in graphs
    )
    return Problem(
        name=name,
        init=init,
        loss=one,
        losses=several,
        measure=measure,
        data=train,
        test=test,
        batch_size=batch_size,
        epochs=epochs,
        plot=plot,
    )


def log_probability(
    network: GraphAttention, params: PyTree, edges: jax.Array, nodes: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The logarithm of p(A | n) of one graph, and the part of its pairs of nodes told wrong.

    Args:
      network: of the problem.
      params: of it.
      edges: bool, shape (nodes at most, nodes at most), symmetric.
      nodes: how many there are.
    """
    given = edges.astype(jax.tree.leaves(params)[0].dtype)

    def of_block(start: jax.Array) -> tuple[jax.Array, jax.Array]:
        weight, logits = cast(Mixture, network.apply(params, given, nodes, start))
        asked = _asked(len(edges), nodes, start, network.block)
        each = jax.nn.log_sigmoid(jnp.where(edges[..., None], logits, -logits))
        within = jnp.where(asked[..., None], each, 0).sum(axis=(0, 1))
        probability = jax.nn.sigmoid(logits) @ jnp.exp(weight)
        wrong = asked & ((probability > 0.5) != edges)
        return jax.nn.logsumexp(weight + within), wrong.sum()

    value, wrong = jax.vmap(of_block)(jnp.arange(0, len(edges), network.block))
    return value.sum(), wrong.sum() / (nodes * (nodes - 1) / 2)


def sample(network: GraphAttention, params: PyTree, nodes: jax.Array, key: jax.Array) -> jax.Array:
    """Draw a graph of so many nodes: its edges, bool, shape (nodes at most, nodes at most)."""

    def add(edges: jax.Array, place: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        start, key = place
        component_key, edge_key = jax.random.split(key)
        given = edges.astype(jnp.float32)
        weight, logits = cast(Mixture, network.apply(params, given, nodes, start))
        chosen = logits[..., jax.random.categorical(component_key, weight)]
        drawn = jax.random.bernoulli(edge_key, jax.nn.sigmoid(chosen))
        drawn &= _asked(NODES, nodes, start, network.block)
        return edges | drawn | drawn.T, None

    starts = jnp.arange(0, NODES, network.block)
    keys = jax.random.split(key, len(starts))
    return jax.lax.scan(add, jnp.zeros((NODES, NODES), bool), (starts, keys))[0]


def _asked(size: int, nodes: jax.Array, start: jax.Array, block: int) -> jax.Array:
    """Pairs (i, j) whose edges a block tells: i in it, and j < i."""
    row, column = jnp.arange(size)[:, None], jnp.arange(size)
    return (row >= start) & (row < start + block) & (row < nodes) & (column < row)


def _differences(state: jax.Array) -> jax.Array:
    return state[:, None] - state


def _draw(name: str, drawn: Graphs, true: Graphs, file: Path) -> None:
    """Graphs that the model draws above, held-out ones below."""
    import networkx

    from ..plots import figure, save

    columns = _DRAWN // 2
    fig = figure(1.6 * columns, 7)
    halves: Any = fig.subfigures(2, 1)
    for half, graphs, title in zip(halves, (drawn, true), ("drawn", "held out"), strict=True):
        half.suptitle(f"{name}: {title}")
        for index, axes in enumerate(half.subplots(2, columns).ravel()):
            nodes = graphs.nodes[index]
            graph = networkx.from_numpy_array(graphs.edges[index, :nodes, :nodes])
            place = networkx.kamada_kawai_layout(graph)
            networkx.draw(graph, place, ax=axes, node_size=30, node_color="C0", edge_color="grey")
    save(fig, file)
