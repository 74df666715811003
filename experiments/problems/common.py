"""What several families of problems share."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .. import solvers
from ..problem import PyTree

Loss = Callable[..., jax.Array]

BAND = 1.645  # deviations on either side of a mean, for a probability of 0.9
STEPS = 8  # of the solver of an ordinary differential equation while training
fixed_steps = partial(solvers.integrate, steps=STEPS)
# An equation that takes more than 500 steps counts as one that cannot be solved.
to_tolerance = partial(solvers.solve, rtol=1e-5, atol=1e-5, max_steps=500)


def deterministic(losses: Callable[[PyTree, PyTree], jax.Array]) -> tuple[Loss, Loss]:
    """A problem's `loss` and `losses`, made of the losses of a batch that need no key."""

    def of_batch(params: PyTree, batch: PyTree, key: jax.Array | None = None) -> jax.Array:
        del key
        return losses(params, batch)

    def of_one(params: PyTree, example: PyTree, key: jax.Array | None = None) -> jax.Array:
        del key
        return losses(params, jax.tree.map(lambda leaf: leaf[None], example))[0]

    return of_one, of_batch


def in_precision_of(params: PyTree, values: PyTree) -> PyTree:
    """The values in the precision of the parameters, in which everything is computed."""
    dtype = jax.tree.leaves(params)[0].dtype
    return jax.tree.map(lambda x: x if x.dtype == bool else x.astype(dtype), values)


def negative_log_density(x: jax.Array, mean: Any = 0.0, deviation: Any = 1.0) -> jax.Array:
    """−log N(x; mean, deviation²), entry by entry, in nats."""
    return -jax.scipy.stats.norm.logpdf(x, mean, deviation)


def kl(mean: jax.Array, deviation: jax.Array, to_mean: Any = 0, to_deviation: Any = 1) -> jax.Array:
    """KL(N(mean, deviation²) ‖ N(to_mean, to_deviation²)), summed over entries, in nats."""
    ratio, distance = deviation / to_deviation, (mean - to_mean) / to_deviation
    return jnp.sum((jnp.square(ratio) + jnp.square(distance) - 1) / 2 - jnp.log(ratio))
