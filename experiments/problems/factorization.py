"""A matrix of low rank, found from part of its entries by two badly scaled factors.

    ℓ((U, V), (i, j)) = (30 Uᵢ·Vⱼ − Aᵢⱼ)² / mean A²,    A = diag(ρ) G Hᵀ diag(γ)

Rows and columns of A are of sizes ρ and γ that span a decade each, and the entries of V have a
thirtieth of the size of those of U. The loss is not convex, its curvatures span many decades, and
there are factors at which it is 0.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ..problem import Problem, PyTree, Source
from .common import deterministic

SIZE = 60
RANK = 5
TEST = 720  # entries held out, a fifth
_DECADES = 1.0  # that the sizes of the rows span, and those of the columns
_UNIT = 30.0  # of V in that of U


def entries(name: str, source: Source) -> Problem:
    """Make the problem of learning entries of a matrix; factors of 0 have loss 1."""
    del source  # the data are drawn
    rng = np.random.default_rng(2020)
    sizes = np.logspace(0, -_DECADES, SIZE)
    left, right = (
        rng.permutation(sizes)[:, None] * rng.standard_normal((SIZE, RANK)) for _ in range(2)
    )
    whole = left @ right.T
    whole /= np.sqrt(np.mean(whole**2))
    row, column = (index.ravel() for index in np.indices(whole.shape))
    order = rng.permutation(whole.size)

    def part(places: np.ndarray) -> dict[str, jax.Array]:
        return {
            "row": jnp.asarray(row[places], jnp.int32),
            "column": jnp.asarray(column[places], jnp.int32),
            "value": jnp.asarray(whole.ravel()[places], jnp.float32),
        }

    def init(key: jax.Array) -> PyTree:
        normal = jax.random.normal(key, (2, SIZE, RANK))
        return {"rows": 0.3 * normal[0], "columns": 0.3 / _UNIT * normal[1]}

    def errors(params: PyTree, batch: PyTree) -> jax.Array:
        u, v = params["rows"][batch["row"]], params["columns"][batch["column"]]
        return jnp.square(_UNIT * jnp.sum(u * v, axis=-1) - batch["value"])

    loss, losses = deterministic(errors)
    return Problem(
        name=name,
        init=init,
        loss=loss,
        losses=losses,
        measure=lambda params, batch: {"loss": errors(params, batch)},
        data=part(order[TEST:]),
        test=part(order[:TEST]),
        batch_size=128,
        epochs=30,
    )
