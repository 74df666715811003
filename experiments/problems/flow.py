"""Learning a density in the plane by an invertible map to a normal distribution.

log p(x) = log N(f(x); 0, I) + log |det ∂f/∂x|
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ..densities import Sampler
from .batched import batched
from .problem import Problem, PyTree

TRAIN, TEST = 20_000, 2_000
_WINDOW = 4.2  # the picture shows [−4.2, 4.2]²
_PIXELS = 120
_DRAWN = 2_000

Mapped = tuple[jax.Array, jax.Array]  # f(x) of shape (2,), log |det ∂f/∂x| of shape ()


@dataclass(frozen=True)
class Flow:
    """An invertible map from data to a normal distribution, of one point at a time.

    Attributes:
      init: `key -> params`.
      forward: `(params, x) -> (f(x), log determinant)`, exact.
      inverse: `(params, z) -> x` with f(x) = z.
      estimate: `(params, x, key) -> (f(x), log determinant)`, the latter right in expectation.
    """

    init: Callable[[jax.Array], PyTree]
    forward: Callable[[PyTree, jax.Array], Mapped]
    inverse: Callable[[PyTree, jax.Array], jax.Array]
    estimate: Callable[[PyTree, jax.Array, jax.Array], Mapped]


def density(name: str, sample: Sampler, flow: Flow, *, batch_size: int, epochs: int) -> Problem:
    """Make the problem of learning a density from samples.

    The loss of a point is −log p, in nats. Measured are the exact one, and the round trip
    ‖f⁻¹(f(x)) − x‖, largest entry: how good the inverse is.

    Args:
      name: of the problem.
      sample: draws the data.
      flow: what is to be learned.
      batch_size: default batch size.
      epochs: default number of epochs.
    """

    def loss(params: PyTree, example: PyTree, key: jax.Array) -> jax.Array:
        return _surprise(*flow.estimate(params, _inside(params, example["x"]), key))

    def measure_one(params: PyTree, example: PyTree) -> dict[str, jax.Array]:
        x = _inside(params, example["x"])
        z, log_determinant = flow.forward(params, x)
        there_and_back = jnp.abs(flow.inverse(params, z) - x).max()
        return {"loss": _surprise(z, log_determinant), "round_trip": there_and_back}

    def plot(params: PyTree, path: Path) -> None:
        line = jnp.linspace(-_WINDOW, _WINDOW, _PIXELS)
        grid = jnp.stack(jnp.meshgrid(line, line), axis=-1).reshape(-1, 2)
        density = jax.jit(jax.vmap(lambda x: jnp.exp(-_surprise(*flow.forward(params, x)))))
        z = jax.random.normal(jax.random.key(0), (_DRAWN, 2))
        samples = jax.jit(jax.vmap(partial(flow.inverse, params)))(z)
        image = np.asarray(density(grid)).reshape(_PIXELS, _PIXELS)
        _draw(name, np.asarray(test["x"]), image, np.asarray(samples), path)

    test = {"x": jnp.asarray(sample(1, TEST))}
    return Problem(
        name=name,
        init=flow.init,
        loss=loss,
        losses=batched(loss),
        measure=lambda params, batch: jax.vmap(partial(measure_one, params))(batch),
        data={"x": jnp.asarray(sample(0, TRAIN))},
        test=test,
        batch_size=batch_size,
        epochs=epochs,
        plot=plot,
    )


def _inside(params: PyTree, x: jax.Array) -> jax.Array:
    """The point in the precision of the parameters, in which all is computed."""
    return x.astype(jax.tree.leaves(params)[0].dtype)


def _surprise(z: jax.Array, log_determinant: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(z) + jnp.log(2 * jnp.pi)) / 2 - log_determinant


def _draw(
    name: str, data: np.ndarray, density: np.ndarray, samples: np.ndarray, file: Path
) -> None:
    from ..plots import figure, save

    made = figure(10.5, 3.9)
    of_data, of_density, of_samples = made.subplots(1, 3, sharex=True, sharey=True)
    of_data.scatter(*data[:_DRAWN].T, s=2, lw=0, color="black")
    of_data.set_title("data")
    extent = (-_WINDOW, _WINDOW, -_WINDOW, _WINDOW)
    of_density.imshow(density, origin="lower", extent=extent, cmap="viridis")
    of_density.set_title("learned density")
    of_samples.scatter(*samples.T, s=2, lw=0, color="C0")
    of_samples.set_title("samples")
    for axes in (of_data, of_density, of_samples):
        axes.set(xlim=extent[:2], ylim=extent[2:], aspect="equal")
    made.suptitle(name)
    save(made, file)
