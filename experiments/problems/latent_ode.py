"""Series at irregular times as noisy views of a path in a latent space.

    z₀ ~ N(0, I),    z(t) = decoder(z₀, t),    value = network(z(t)) + noise

An encoder reads what was observed in the first half of a series, backward in time, and gives the
mean and deviation of a normal distribution of z₀. The loss is minus the lower bound of the
likelihood of what was observed in both halves, by one sample of z₀. The path solves a differential
equation, or is that of a recurrent network.

Y. Rubanova, R. T. Q. Chen and D. Duvenaud, *Latent ODEs for Irregularly-Sampled Time Series*
(2019), arXiv:1907.03907, section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from .. import solvers
from ..models import Recurrent, SmoothMLP
from ..problem import Problem, PyTree, Source, batched, example_key
from .common import in_precision_of, kl, negative_log_density
from .irregular_series import CHANNELS, END, NOISE, SEEN_UNTIL, Series, damped_oscillations

TRAIN, TEST = 2_000, 500
_SAMPLES = 4  # of z₀, to judge by
_DRAWN = 40  # of z₀, for the picture
_INSTANTS = 150

Trajectory = Callable[[solvers.Field, PyTree, jax.Array], PyTree]  # (field, y0, times) -> states


class Decoder(NamedTuple):
    """From the start of a path to its states.

    Attributes:
      init: `key -> params`.
      states: `(params, z0, times) -> (n, any size)`, where times (n,) rise.
      continuous: whether a state does not depend on which other times are asked for.
    """

    init: Callable[[jax.Array], PyTree]
    states: Callable[[PyTree, jax.Array, jax.Array], jax.Array]
    continuous: bool


def differential(*, latent: int, width: int, trajectory: Trajectory | None = None) -> Decoder:
    """The path solves dz/dt = f(z), where f is a network; by one fixed step from time to time."""
    field: Any = SmoothMLP((width, width), latent)
    solve = trajectory or solvers.trajectory

    def states(params: PyTree, z0: jax.Array, times: jax.Array) -> jax.Array:
        return solve(lambda t, z: field.apply(params, z), z0, times)

    return Decoder(lambda key: field.init(key, jnp.zeros(latent)), states, continuous=True)


def gated(*, latent: int, width: int) -> Decoder:
    """The path is that of a recurrent network, which is told how much time has passed."""
    start: Any = SmoothMLP((), width)
    network: Any = Recurrent(width)

    def init(key: jax.Array) -> PyTree:
        start_key, network_key = jax.random.split(key)
        return {
            "start": start.init(start_key, jnp.zeros(latent)),
            "network": network.init(network_key, jnp.zeros((1, 1)), jnp.ones(1, bool)),
        }

    def states(params: PyTree, z0: jax.Array, times: jax.Array) -> jax.Array:
        since = jnp.diff(times, prepend=times[:1])[:, None]
        first = jnp.tanh(start.apply(params["start"], z0))
        return network.apply(params["network"], since, since[:, 0] >= 0, first)

    return Decoder(init, states, continuous=False)


def quick(
    name: str, source: Source, decoder: Callable[..., Decoder] = differential, **options: Any
) -> Problem:
    """The small size; options are those of the decoder."""
    del source  # the data are drawn
    train, test = damped_oscillations(0, TRAIN), damped_oscillations(1, TEST)
    made = decoder(latent=4, width=32, **options)
    return latent_series(name, train, test, made, latent=4, width=32, batch_size=64, epochs=50)


recurrent = partial(quick, decoder=gated)


def large(name: str, source: Source) -> Problem:
    del source
    train, test = (
        damped_oscillations(seed, count, longest=100) for seed, count in ((0, 20_000), (1, TEST))
    )
    made = differential(latent=10, width=100)
    return latent_series(name, train, test, made, latent=10, width=100, batch_size=256, epochs=200)


def latent_series(
    name: str,
    train: Series,
    test: Series,
    decoder: Decoder,
    *,
    latent: int,
    width: int,
    batch_size: int,
    epochs: int,
) -> Problem:
    """Make the problem of filling in and continuing series.

    The loss is in nats for each observed value. Measured are it, by fixed samples, and two mean
    squared errors of predictions, each the mean over samples: `reconstruction_error` of values
    of the first half that are hidden, and `extrapolation_error` of all values of the second half.

    Args:
      name: of the problem.
      train: series to learn from.
      test: series to judge by.
      decoder: what gives the path.
      latent: size of z₀.
      width: of the encoder and of the network that gives the values.
      batch_size: default batch size.
      epochs: default number of epochs.
    """
    encoder: Any = Recurrent(width, reverse=True)
    head: Any = nn.Dense(2 * latent)
    emission: Any = SmoothMLP((width,), CHANNELS)

    def init(key: jax.Array) -> PyTree:
        keys = jax.random.split(key, 4)
        decoding = decoder.init(keys[2])
        state = decoder.states(decoding, jnp.zeros(latent), jnp.zeros(2))[0]
        return {
            "encoder": encoder.init(keys[0], jnp.zeros((1, 2 * CHANNELS + 2)), jnp.zeros(1, bool)),
            "head": head.init(keys[1], jnp.zeros(width)),
            "decoder": decoding,
            "emission": emission.init(keys[3], state),
        }

    def encode(params: PyTree, series: PyTree) -> tuple[jax.Array, jax.Array]:
        """Mean and deviation of z₀."""
        early = series["time"] <= SEEN_UNTIL
        seen = (series["observed"] & early[:, None]).astype(series["value"].dtype)
        time = series["time"][:, None]
        since = jnp.diff(time, axis=0, append=time[-1:])  # the encoder comes from later
        inputs = jnp.concatenate([seen * series["value"], seen, time, since], axis=1)
        states = encoder.apply(params["encoder"], inputs, seen.any(axis=1))
        mean, log_deviation = jnp.split(head.apply(params["head"], states[0]), 2)
        return mean, jnp.exp(log_deviation)

    def predict(params: PyTree, z0: jax.Array, times: jax.Array) -> jax.Array:
        """Values (n, channels) at times (n,), the path starting at 0."""
        from_start = jnp.concatenate([jnp.zeros(1, times.dtype), times])
        states = decoder.states(params["decoder"], z0, from_start)[1:]
        return emission.apply(params["emission"], states)

    def sample(params: PyTree, series: PyTree, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Predictions at the times of the series, and minus the lower bound of the likelihood."""
        mean, deviation = encode(params, series)
        z0 = mean + deviation * jax.random.normal(key, mean.shape, mean.dtype)
        predicted = predict(params, z0, series["time"])
        losses = negative_log_density(series["value"], predicted, NOISE)
        total = jnp.sum(jnp.where(series["observed"], losses, 0)) + kl(mean, deviation)
        return predicted, total / jnp.maximum(series["observed"].sum(), 1)

    def loss(params: PyTree, example: PyTree, key: jax.Array) -> jax.Array:
        return sample(params, in_precision_of(params, example), key)[1]

    def measure_one(params: PyTree, example: PyTree) -> dict[str, jax.Array]:
        series = in_precision_of(params, example)
        keys = jax.random.split(example_key(series["value"]), _SAMPLES)
        predicted, bounds = jax.vmap(partial(sample, params, series))(keys)
        error = jnp.square(predicted.mean(axis=0) - series["value"])
        early = series["time"][:, None] <= SEEN_UNTIL
        late = (series["hidden"] | series["observed"]) & ~early
        return {
            "loss": bounds.mean(),
            "reconstruction_error": _mean_where(series["hidden"] & early, error),
            "extrapolation_error": _mean_where(late, error),
        }

    def plot(params: PyTree, path: Path) -> None:
        grid = jnp.linspace(0, END, _INSTANTS)

        def paths(series: PyTree) -> tuple[jax.Array, jax.Array]:
            times = grid if decoder.continuous else series["time"]
            mean, deviation = encode(params, series)
            normal = jax.random.normal(jax.random.key(1), (_DRAWN, latent))
            starts = mean + deviation * normal
            return times, jax.vmap(lambda z0: predict(params, z0, times))(starts)

        series = jax.tree.map(lambda leaf: jnp.asarray(leaf[:4]), test._asdict())
        times, drawn = jax.device_get(jax.jit(jax.vmap(paths))(series))
        _draw(name, test, times, drawn, path)

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


def _mean_where(mask: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(mask, x, 0)) / jnp.maximum(mask.sum(), 1)


def _draw(name: str, test: Series, times: np.ndarray, paths: np.ndarray, file: Path) -> None:
    """Four test series, one in a row: what was seen, what was not, and the band of predictions."""
    from ..plots import figure, save

    rows = len(times)
    fig = figure(10.5, 1.9 * rows + 0.6)
    panels = fig.subplots(rows, CHANNELS, sharex=True, sharey=True, squeeze=False)
    middle = paths.mean(axis=1)
    spread = 2 * np.sqrt(paths.var(axis=1) + NOISE**2)
    for (row, channel), axes in np.ndenumerate(panels):
        mean, half = middle[row, :, channel], spread[row, :, channel]
        axes.fill_between(times[row], mean - half, mean + half, color="C0", alpha=0.25, lw=0)
        axes.plot(times[row], mean, color="C0", lw=1.2)
        given = test.observed[row, :, channel] & (test.time[row] <= SEEN_UNTIL)
        asked = (test.observed | test.hidden)[row, :, channel] & ~given
        for chosen, fill, label in ((given, "black", "seen"), (asked, "white", "not seen")):
            dots = {"s": 14, "lw": 0.8, "color": fill, "edgecolor": "black", "zorder": 3}
            place = test.time[row, chosen], test.value[row, chosen, channel]
            axes.scatter(*place, label=label, **dots)
        axes.axvline(SEEN_UNTIL, color="grey", lw=0.8, ls=":")
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title("" if row else f"channel {channel + 1}", fontsize=10)
        axes.set_xlabel("time" if row == rows - 1 else "")
    fig.suptitle(f"{name}: test series, and mean ± 2 deviations of predictions")
    fig.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    save(fig, file)
