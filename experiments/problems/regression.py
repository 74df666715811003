"""A smooth curve fitted by a small network: no noise, and the loss can all but vanish.

    ℓ(θ, x) = (f_θ(x) − y(x))² / Var y,    y(x) = sin 3x + 0.3 cos 7x,    x ∈ [−1, 1]

The points are few enough to be seen all at once, in every step.
"""

from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from ..models import SmoothMLP
from ..problem import Problem, PyTree, Source
from .common import deterministic, in_precision_of

POINTS = 256


def curve(name: str, source: Source) -> Problem:
    """Make the problem; who predicts the mean everywhere has loss 1."""
    del source  # the data are computed
    module = SmoothMLP((32, 32), 1)
    x = np.linspace(-1, 1, POINTS)
    deviation = float(_truth(x).std())

    def errors(params: PyTree, batch: PyTree) -> jax.Array:
        given = in_precision_of(params, batch)
        found = cast(jax.Array, module.apply(params, given["x"][:, None]))[:, 0]
        return jnp.square((found - given["y"]) / deviation)

    loss, losses = deterministic(errors)
    return Problem(
        name=name,
        init=lambda key: module.init(key, jnp.zeros((1, 1))),
        loss=loss,
        losses=losses,
        measure=lambda params, batch: {"loss": errors(params, batch)},
        data=_points(x),
        test=_points((x[1:] + x[:-1]) / 2),
        batch_size=POINTS,
        epochs=600,
    )


def _truth(x: np.ndarray) -> np.ndarray:
    return np.sin(3 * x) + 0.3 * np.cos(7 * x)


def _points(x: np.ndarray) -> dict[str, jax.Array]:
    return {"x": jnp.asarray(x, jnp.float32), "y": jnp.asarray(_truth(x), jnp.float32)}
