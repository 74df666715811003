"""All graphs of two to seven nodes, as NetworkX ships them.

R. C. Read and R. J. Wilson, *An Atlas of Graphs* (1998).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .packaged import require, unexpected

NODES = 7  # at most
COUNT = 1_251
_TEST = 0.2  # of each size


class Graphs(NamedTuple):
    """Graphs without loops, with an order of their nodes.

    Attributes:
      nodes: how many, int32, shape (graphs,).
      edges: whether there is one from i to j, bool, shape (graphs, 7, 7), symmetric.
    """

    nodes: np.ndarray
    edges: np.ndarray


def atlas() -> tuple[Graphs, Graphs]:
    """Graphs to learn from and to judge by, 80 % and 20 % of each size.

    Raises:
      UsageError: if NetworkX or its atlas is not there.
    """
    networkx = require("networkx", "the atlas of small graphs")
    whole = f"an atlas of {COUNT:,} graphs"
    try:
        found = [graph for graph in networkx.graph_atlas_g() if len(graph) > 1]
    except OSError as error:
        raise unexpected("networkx", "NetworkX", whole, f"none ({error})") from error
    if len(found) != COUNT:
        raise unexpected("networkx", "NetworkX", whole, f"{len(found):,} of {COUNT:,} graphs")
    nodes = np.array([len(graph) for graph in found], np.int32)
    edges = np.zeros((COUNT, NODES, NODES), bool)
    for matrix, graph in zip(edges, found, strict=True):
        matrix[: len(graph), : len(graph)] = networkx.to_numpy_array(graph, breadth_first(graph))
    # Of a size there may be two graphs only: both are learned from.
    rng = np.random.default_rng(2020)
    sizes = [rng.permutation(np.flatnonzero(nodes == size)) for size in range(2, NODES + 1)]
    test = np.concatenate([members[: int(_TEST * len(members))] for members in sizes])
    train = np.setdiff1d(np.arange(COUNT), test)
    learned, judged = (
        Graphs(nodes[part], edges[part]) for part in (rng.permutation(train), rng.permutation(test))
    )
    return learned, judged


def breadth_first(graph: Any) -> list[int]:
    """The nodes in breadth-first order, of each component from one with the most edges on.

    A node comes as near as can be to its neighbors, so that of each most are known when its edges
    are told.
    """
    order: dict[int, None] = {}
    for start in sorted(graph, key=graph.degree, reverse=True):
        queue = [] if start in order else [start]
        while queue:
            node = queue.pop(0)
            if node not in order:
                order[node] = None
                queue += sorted(graph[node], key=graph.degree, reverse=True)
    return list(order)
