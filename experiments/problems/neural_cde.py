"""Classification of series by a differential equation that they control.

    z(0) = A x(0) + b,    dz = f(z) dX(t) / √d,    logits = W z(end) + c

where X is the path of time and values, d numbers, that interpolates the series, and f a network
that gives a matrix. What was measured acts on the state all along, not at its start alone as in a
neural ODE; series may have any length. X is piecewise cubic with differences backward in time as
its slopes: dX/dt is continuous, and what comes later does not change what came before.

P. Kidger, J. Morrill, J. Foster and T. Lyons, *Neural Controlled Differential Equations for
Irregular Time Series* (2020), arXiv:2005.08926, section 3; J. Morrill, P. Kidger, L. Yang and
T. Lyons, *Neural Controlled Differential Equations for Online Prediction Tasks* (2021),
arXiv:2106.11028, for the slopes.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import diffrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from .. import solvers
from ..models import SmoothMLP
from ..problem import Problem, PyTree, Source, batched
from .common import in_precision_of
from .spoken_vowels import CHANNELS, SPEAKERS, Utterances, japanese_vowels

_UNIT = 10.0  # of time: a step of the series is a tenth
_DRAWN = 60  # test series in the picture
one_step = partial(solvers.integrate, steps=1)  # from each time to the next


def vowels(name: str, source: Source) -> Problem:
    del source  # the data come with aeon
    return controlled(name, *japanese_vowels(), size=16, width=32, batch_size=32, epochs=60)


def controlled(
    name: str,
    train: Utterances,
    test: Utterances,
    *,
    size: int,
    width: int,
    batch_size: int,
    epochs: int,
    integrate: solvers.Integrate = one_step,
) -> Problem:
    """Make the problem of telling who speaks; measured are the cross-entropy and the accuracy.

    Args:
      name: of the problem.
      train: series to learn from.
      test: series to judge by.
      size: of z.
      width: of the hidden layer of f.
      batch_size: default batch size.
      epochs: default number of epochs.
      integrate: solver from each time of a series to the next.

    Raises:
      ValueError: for a solver that cannot be differentiated twice.
    """
    solvers.require_second_order(integrate)
    start: Any = nn.Dense(size)
    field: Any = SmoothMLP((width,), size * (CHANNELS + 1))
    head: Any = nn.Dense(SPEAKERS)

    def init(key: jax.Array) -> PyTree:
        keys, z = jax.random.split(key, 3), jnp.zeros(size)
        return {
            "start": start.init(keys[0], jnp.zeros(CHANNELS)),
            "field": field.init(keys[1], z),
            "head": head.init(keys[2], z),
        }

    def path(params: PyTree, value: jax.Array, length: jax.Array) -> jax.Array:
        """States (n, size) at the times of a series; after its end they stay as they are."""
        value = in_precision_of(params, value)
        index = jnp.arange(len(value))
        time = index.astype(value.dtype) / _UNIT
        known = jnp.concatenate([time[:, None], value], axis=1)
        # X(t) is d s³ + c s² + b s + a from each time to the next, s after the first of them.
        cubic, square, linear, _ = diffrax.backward_hermite_coefficients(time, known)

        def until(z: jax.Array, given: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
            d, c, b, goes_on = given

            def slope(s: jax.Array, z: jax.Array) -> jax.Array:
                matrix = jnp.tanh(field.apply(params["field"], z)).reshape(size, -1)
                return goes_on / len(b) ** 0.5 * (matrix @ (b + s * (2 * c + 3 * s * d)))

            z = integrate(slope, z, 0.0, 1 / _UNIT)
            return z, z

        goes_on = (index[1:] < length).astype(value.dtype)
        z = start.apply(params["start"], value[0])
        _, later = jax.lax.scan(until, z, (cubic, square, linear, goes_on))
        return jnp.concatenate([z[None], later])

    def results(params: PyTree, example: PyTree) -> dict[str, jax.Array]:
        z = path(params, example["value"], example["length"])[-1]
        logits = head.apply(params["head"], z)
        return {
            "loss": optax.softmax_cross_entropy_with_integer_labels(logits, example["label"]),
            "accuracy": jnp.argmax(logits) == example["label"],
        }

    def loss(params: PyTree, example: PyTree, key: jax.Array | None = None) -> jax.Array:
        del key
        return results(params, example)["loss"]

    def plot(params: PyTree, file: Path) -> None:
        shown = Utterances(*(leaf[:_DRAWN] for leaf in test))
        paths = jax.jit(jax.vmap(partial(path, params)))(shown.value, shown.length)
        _draw(name, np.asarray(paths), shown, file)

    return Problem(
        name=name,
        init=init,
        loss=loss,
        losses=batched(loss),
        measure=lambda params, batch: jax.vmap(partial(results, params))(batch),
        data=jax.tree.map(jnp.asarray, train._asdict()),
        test=jax.tree.map(jnp.asarray, test._asdict()),
        batch_size=batch_size,
        epochs=epochs,
        plot=plot,
    )


def _draw(name: str, paths: np.ndarray, shown: Utterances, file: Path) -> None:
    """States along test series, in the plane in which their ends vary most, colored by class."""
    from ..plots import figure, save, tidy

    ends = paths[:, -1]
    center = ends.mean(axis=0)
    plane = np.linalg.svd(ends - center, full_matrices=False)[2][:2]
    flat = (paths - center) @ plane.T
    fig = figure(6.4, 5.0)
    axes = fig.add_subplot()
    for label in np.unique(shown.label):
        x, y = flat[shown.label == label].T  # of shape (times, series)
        axes.plot(x, y, color=f"C{label}", lw=0.5, alpha=0.6)
        dots = {"s": 14, "color": f"C{label}", "label": str(label + 1), "zorder": 3}
        axes.scatter(x[-1], y[-1], **dots)
    axes.set_title(f"{name}: states along test series, and their ends (dots)")
    axes.set_xlabel("first principal component of z(end)")
    axes.set_ylabel("second principal component")
    tidy(axes)
    fig.legend(title="speaker", loc="outside right center", frameon=False)
    save(fig, file)
