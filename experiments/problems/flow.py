"""Learning a density by an invertible map to a normal distribution.

log p(x) = log N(f(x); 0, I) + log |det ∂f/∂x|
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..problem import Problem, PyTree, batched
from .common import in_precision_of, negative_log_density

_PIXELS = 120
_DRAWN = 2_000

Mapped = tuple[jax.Array, jax.Array]  # f(x) of shape (d,), log |det ∂f/∂x| of shape ()


class Flow(NamedTuple):
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


def density(
    name: str,
    examples: tuple[np.ndarray, np.ndarray],
    flow: Flow,
    *,
    batch_size: int,
    epochs: int,
    evaluations: int = 20,
    measure: Callable[[PyTree, jax.Array], dict[str, jax.Array]] | None = None,
) -> Problem:
    """Make the problem of learning a density from samples.

    The loss of a point is −log p, in nats. Measured are it, `nats_per_dimension`, which is the loss
    over d, and `gaussian_per_dimension`, the same by the Gaussian fitted to the points to learn
    from, which nothing that is learned changes.

    Args:
      name: of the problem.
      examples: points to learn from and to judge by, shapes (n, d).
      flow: what is to be learned.
      batch_size: default batch size.
      epochs: default number of epochs.
      evaluations: how often to evaluate during a run, at least.
      measure: `(params, x) -> dict`, what one point is measured by besides; by default the exact
        loss and the round trip ‖f⁻¹(f(x)) − x‖, largest entry: how good the inverse is.
    """
    train, test = examples
    reference = gaussian(train)

    def loss(params: PyTree, example: PyTree, key: jax.Array) -> jax.Array:
        return minus_log_p(flow.estimate(params, in_precision_of(params, example["x"]), key))

    def exact(params: PyTree, x: jax.Array) -> dict[str, jax.Array]:
        mapped = flow.forward(params, x)
        round_trip = jnp.abs(flow.inverse(params, mapped[0]) - x).max()
        return {"loss": minus_log_p(mapped), "round_trip": round_trip}

    def measure_one(params: PyTree, x: jax.Array) -> dict[str, jax.Array]:
        found = (measure or exact)(params, x)
        return {
            **found,
            "nats_per_dimension": found["loss"] / x.size,
            "gaussian_per_dimension": minus_log_p(reference(x)) / x.size,
        }

    def measure_all(params: PyTree, batch: PyTree) -> dict[str, jax.Array]:
        x = in_precision_of(params, batch["x"])
        return jax.vmap(partial(measure_one, params))(x)

    return Problem(
        name=name,
        init=flow.init,
        loss=loss,
        losses=batched(loss),
        measure=measure_all,
        data={"x": jnp.asarray(train)},
        test={"x": jnp.asarray(test)},
        batch_size=batch_size,
        epochs=epochs,
        evaluations=evaluations,
        plot=lambda params, path: _draw(name, test, flow, params, path),
    )


def minus_log_p(mapped: Mapped) -> jax.Array:
    z, log_determinant = mapped
    return jnp.sum(negative_log_density(z)) - log_determinant


def gaussian(points: np.ndarray) -> Callable[[jax.Array], Mapped]:
    """The affine map that makes points likeliest: their mean goes to 0, their covariance to I.

    Args:
      points: shape (n, d), with n > d.

    Example:
      >>> fitted = gaussian(np.array([[-1.0, 0], [1, 0], [0, -1], [0, 1]]))
      >>> print(f"{minus_log_p(fitted(jnp.zeros(2))):.3f}, exact {jnp.log(jnp.pi):.3f}")
      1.145, exact 1.145
    """
    mean, covariance = points.mean(axis=0), np.cov(points.T, bias=True)
    whiten = np.linalg.inv(np.linalg.cholesky(covariance))
    log_determinant = np.log(np.diag(whiten)).sum()
    return lambda x: (whiten @ (x - mean), jnp.asarray(log_determinant, x.dtype))


def _draw(name: str, data: np.ndarray, flow: Flow, params: PyTree, file: Path) -> None:
    """Data and samples, and in the plane the density; else the two least Gaussian coordinates."""
    from ..plots import figure, save

    plane = data.shape[1] == 2
    limit = 4.2 if plane else 5.0
    z = jax.random.normal(jax.random.key(0), (_DRAWN, data.shape[1]))
    samples = np.asarray(jax.jit(jax.vmap(partial(flow.inverse, params)))(z))
    shown = [0, 1] if plane else np.argsort(np.mean(data**4, axis=0))[-2:]
    fig = figure(10.5 if plane else 8.0, 3.9)
    panels: Any = fig.subplots(1, 2 + plane, sharex=True, sharey=True)
    for axes, title, points in (panels[0], "data", data), (panels[-1], "samples", samples):
        axes.scatter(
            *points[:_DRAWN, shown].T, s=2, lw=0, color="black" if title == "data" else "C0"
        )
        axes.set(title=title, xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    if plane:
        line = jnp.linspace(-limit, limit, _PIXELS)
        grid = jnp.stack(jnp.meshgrid(line, line), axis=-1)
        p = jax.vmap(jax.vmap(lambda x: jnp.exp(-minus_log_p(flow.forward(params, x)))))
        extent = (-limit, limit, -limit, limit)
        panels[1].imshow(np.asarray(jax.jit(p)(grid)), origin="lower", extent=extent)
        panels[1].set_title("learned density")
    fig.suptitle(name)
    save(fig, file)
