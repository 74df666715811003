"""Motions as noisy views of a path that switches between linear dynamics.

    z_t ~ P(z_t | z_t−1),    x₁ ~ N(0, I),    x_t ~ N(A x_t−1 + b, S²),    y_t ~ N(decoder(x_t), σ²)

where A, b and the diagonal S are those of the state z_t, one of a few. A network that reads the
last three values gives q(x_t | y). Given a path x, which is sampled from q, all sequences of states
are summed over by the forward algorithm: messages are passed inside the loss,

    ℓ(θ, y) = −log p(y | x) − log Σ_z p(x, z) + log q(x | y),    for each number measured.

M. J. Johnson, D. Duvenaud, A. B. Wiltschko, S. R. Datta and R. P. Adams, *Composing Graphical
Models with Neural Networks for Structured Representations and Fast Inference* (2016),
arXiv:1603.06277; Z. Dong, B. A. Seybold, K. P. Murphy and H. H. Bui, *Collapsed Amortized
Variational Inference for Switching Nonlinear Dynamical Systems* (2020), arXiv:1910.09588, for the
sum over states given a sampled path.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..models import SmoothMLP
from ..problem import Problem, PyTree, Source, batched, example_key
from .common import in_precision_of, negative_log_density
from .forward_algorithm import forward
from .motions import ACTIVITIES, CHANNELS, Motions, basic_motions

_SAMPLES = 4  # of the path, to judge by
_READ = 3  # values that tell of a place on the path: this one and those before
_STAY = 3.0  # logit of staying in a state, at first


def motions(name: str, source: Source) -> Problem:
    del source  # the data come with aeon
    return switching(name, *basic_motions(), states=4, latent=3, width=32, batch_size=32, epochs=80)


def switching(
    name: str,
    train: Motions,
    test: Motions,
    *,
    states: int,
    latent: int,
    width: int,
    batch_size: int,
    epochs: int,
) -> Problem:
    """Make the problem of learning the dynamics of motions, and when they switch.

    Measured are the loss, by fixed samples; the mean squared error of each value forecast from
    those before, `forecast_error`; and that of the value before, `persistence_error`, which nothing
    that is learned changes.

    Args:
      name: of the problem.
      train: pieces to learn from.
      test: pieces to judge by.
      states: number of dynamics.
      latent: size of x.
      width: of the hidden layers of encoder and decoder.
      batch_size: default batch size.
      epochs: default number of epochs.
    """
    encoder: Any = SmoothMLP((width,), 2 * latent)
    decoder: Any = SmoothMLP((width,), CHANNELS)

    def init(key: jax.Array) -> PyTree:
        keys = jax.random.split(key, 3)
        return {
            "encoder": encoder.init(keys[0], jnp.zeros(_READ * CHANNELS)),
            "decoder": decoder.init(keys[1], jnp.zeros(latent)),
            "log_noise": jnp.zeros(CHANNELS),
            "start": jnp.zeros(states),
            "transition": _STAY * jnp.eye(states),
            "matrix": 0.9 * jax.random.orthogonal(keys[2], latent, (states,)),
            "shift": jnp.zeros((states, latent)),
            "log_deviation": jnp.zeros((states, latent)),
        }

    def encode(params: PyTree, value: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and deviation of q(x | y), shape (times, latent)."""
        padded = jnp.pad(value, ((_READ - 1, 0), (0, 0)), "edge")
        last = [padded[lag : lag + len(value)] for lag in range(_READ)]
        mean, log_deviation = jnp.split(
            encoder.apply(params["encoder"], jnp.concatenate(last, axis=1)), 2, axis=1
        )
        return mean, jnp.exp(log_deviation)

    def ahead(params: PyTree, path: jax.Array) -> jax.Array:
        """Where each of the dynamics leads from all but the last place, (times − 1, states, n)."""
        return jnp.einsum("kij,tj->tki", params["matrix"], path[:-1]) + params["shift"]

    def sum_over_states(params: PyTree, path: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Of a path, log p(x); and log P(z_t | x₁, …, x_t−1)."""
        first = -negative_log_density(path[0]).sum()
        deviation = jnp.exp(params["log_deviation"])
        later = -negative_log_density(path[1:, None], ahead(params, path), deviation).sum(axis=-1)
        return forward(
            jax.nn.log_softmax(params["start"]),
            jax.nn.log_softmax(params["transition"]),
            jnp.concatenate([jnp.full((1, states), first), later]),
        )

    def loss(params: PyTree, example: PyTree, key: jax.Array) -> jax.Array:
        value = in_precision_of(params, example["value"])
        mean, deviation = encode(params, value)
        path = mean + deviation * jax.random.normal(key, mean.shape, mean.dtype)
        of_value = negative_log_density(
            value, decoder.apply(params["decoder"], path), jnp.exp(params["log_noise"])
        )
        of_q = negative_log_density(path, mean, deviation)
        return (of_value.sum() - sum_over_states(params, path)[0] - of_q.sum()) / value.size

    def forecast(params: PyTree, value: jax.Array) -> tuple[jax.Array, jax.Array]:
        """All values but the first, each from those before, and the probabilities of the states."""
        path = encode(params, value)[0]
        probability = jnp.exp(sum_over_states(params, path)[1][1:])
        mean = jnp.einsum("tk,tki->ti", probability, ahead(params, path))
        return decoder.apply(params["decoder"], mean), probability

    def measure_one(params: PyTree, example: PyTree) -> dict[str, jax.Array]:
        value = in_precision_of(params, example["value"])
        keys = jax.random.split(example_key(value), _SAMPLES)
        return {
            "loss": jax.vmap(partial(loss, params, example))(keys).mean(),
            "forecast_error": jnp.mean(jnp.square(forecast(params, value)[0] - value[1:])),
            "persistence_error": jnp.mean(jnp.square(jnp.diff(value, axis=0))),
        }

    def plot(params: PyTree, path: Path) -> None:
        rows = [int(np.argmax(test.label == label)) for label in range(len(ACTIVITIES))]
        shown = Motions(*(leaf[rows] for leaf in test))
        found = jax.jit(jax.vmap(partial(forecast, params)))(shown.value)
        values, probability = jax.device_get(found)
        _draw(name, shown, values, probability, path)

    return Problem(
        name=name,
        init=init,
        loss=loss,
        losses=batched(loss),
        measure=lambda params, batch: jax.vmap(partial(measure_one, params))(batch),
        data=jax.tree.map(jnp.asarray, train._asdict()),
        test=jax.tree.map(jnp.asarray, test._asdict()),
        batch_size=batch_size,
        epochs=epochs,
        plot=plot,
    )


def _draw(
    name: str, shown: Motions, forecast: np.ndarray, probability: np.ndarray, file: Path
) -> None:
    """Two channels of a test piece of each activity, forecasts, and the states expected."""
    from ..plots import figure, save, tidy

    fig = figure(11, 4.6)
    panels = fig.subplots(3, len(shown.label), sharex=True, sharey="row")
    for (row, column), axes in np.ndenumerate(panels):
        if row == 2:
            axes.stackplot(np.arange(1, 1 + len(probability[column])), probability[column].T)
            axes.set_xlabel("tenths of a second")
            continue
        axes.plot(shown.value[column, :, row], color="black", lw=1.0, label="measured")
        later = np.arange(1, 1 + len(forecast[column]))
        axes.plot(later, forecast[column, :, row], color="C0", lw=1.0, label="forecast")
        axes.set_title("" if row else ACTIVITIES[shown.label[column]], fontsize=10)
        tidy(axes)
    for axes, label in zip(panels[:, 0], ("channel 1", "channel 2", "state ahead"), strict=True):
        axes.set_ylabel(label)
    fig.suptitle(f"{name}: test pieces, each value forecast from those before")
    fig.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside right upper")
    save(fig, file)
