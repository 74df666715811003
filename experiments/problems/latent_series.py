"""Series at irregular times as noisy views of a path in a latent space.

    z₀ ~ N(0, I),    z(t) = decoder(z₀, t),    value = network(z(t)) + noise

An encoder reads what was observed in the first half of a series, backward in time, and gives the
mean and deviation of a normal distribution of z₀. The loss is minus the lower bound of the
likelihood of what was observed in both halves, by one sample of z₀.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ..irregular_series import CHANNELS, END, NOISE, SEEN_UNTIL, Series
from ..models import Recurrent, TanhMLP
from .batched import batched
from .example_key import key_of
from .gaussian import kl, surprise
from .problem import Problem, PyTree

_SAMPLES = 4  # of z₀, to judge by
_DRAWN = 40  # of z₀, for the picture
_INSTANTS = 150


@dataclass(frozen=True)
class Decoder:
    """From the start of a path to its states.

    Attributes:
      init: `key -> params`.
      states: `(params, z0, times) -> (n, any size)`, where times (n,) rise.
      continuous: whether a state does not depend on which other times are asked for.
    """

    init: Callable[[jax.Array], PyTree]
    states: Callable[[PyTree, jax.Array, jax.Array], jax.Array]
    continuous: bool


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
    emission: Any = TanhMLP((width,), CHANNELS)

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
        surprises = surprise(series["value"], predicted, NOISE)
        total = jnp.sum(jnp.where(series["observed"], surprises, 0))
        bound = total + kl(mean, deviation)
        return predicted, bound / jnp.maximum(series["observed"].sum(), 1)

    def loss(params: PyTree, example: PyTree, key: jax.Array) -> jax.Array:
        return sample(params, _inside(params, example), key)[1]

    def measure_one(params: PyTree, example: PyTree) -> dict[str, jax.Array]:
        series = _inside(params, example)
        keys = jax.random.split(key_of(series["value"]), _SAMPLES)
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

        series = jax.tree.map(lambda leaf: leaf[:4], _on_device(test))
        times, drawn = jax.device_get(jax.jit(jax.vmap(paths))(series))
        _draw(name, test, times, drawn, path)

    return Problem(
        name=name,
        init=init,
        loss=loss,
        losses=batched(loss),
        measure=lambda params, batch: jax.vmap(partial(measure_one, params))(batch),
        data=_on_device(train),
        test=_on_device(test),
        batch_size=batch_size,
        epochs=epochs,
        plot=plot,
    )


def _inside(params: PyTree, series: PyTree) -> PyTree:
    """The series in the precision of the parameters, in which all is computed."""
    dtype = jax.tree.leaves(params)[0].dtype
    return {k: v if v.dtype == bool else v.astype(dtype) for k, v in series.items()}


def _mean_where(mask: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(mask, x, 0)) / jnp.maximum(mask.sum(), 1)


def _on_device(series: Series) -> dict[str, jax.Array]:
    return {name: jnp.asarray(array) for name, array in series.arrays().items()}


def _draw(name: str, test: Series, times: np.ndarray, paths: np.ndarray, file: Path) -> None:
    """Four test series, one in a row: what was seen, what was not, and the band of predictions."""
    from ..plots import figure, save

    rows = len(times)
    made = figure(10.5, 1.9 * rows + 0.6)
    all_axes = made.subplots(rows, CHANNELS, sharex=True, sharey=True, squeeze=False)
    middle = paths.mean(axis=1)
    spread = 2 * np.sqrt(paths.var(axis=1) + NOISE**2)
    for row in range(rows):
        early = test.time[row] <= SEEN_UNTIL
        for channel, axes in enumerate(all_axes[row]):
            low, high = (
                middle[row, :, channel] + sign * spread[row, :, channel] for sign in (-1, 1)
            )
            axes.fill_between(times[row], low, high, color="C0", alpha=0.25, lw=0)
            axes.plot(times[row], middle[row, :, channel], color="C0", lw=1.2)
            given = test.observed[row, :, channel] & early
            asked = (test.observed | test.hidden)[row, :, channel] & ~given
            for chosen, fill, label in ((given, "black", "seen"), (asked, "white", "not seen")):
                axes.scatter(
                    test.time[row, chosen],
                    test.value[row, chosen, channel],
                    s=14,
                    lw=0.8,
                    color=fill,
                    edgecolor="black",
                    zorder=3,
                    label=label,
                )
            axes.axvline(SEEN_UNTIL, color="grey", lw=0.8, ls=":")
            axes.spines[["top", "right"]].set_visible(False)
    for channel, axes in enumerate(all_axes[0]):
        axes.set_title(f"channel {channel + 1}", fontsize=10)
    for axes in all_axes[-1]:
        axes.set_xlabel("time")
    made.suptitle(f"{name}: test series, and mean ± 2 deviations of predictions")
    made.legend(*all_axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    save(made, file)
