"""Latent SDEs: series as noisy views of a random path in a latent space.

    prior      dz = h(z) dt + σ dW,                    z(0) ~ N(m, s²)
    posterior  dz = (h(z) + σ u(z, c(t))) dt + σ dW,   z(0) ~ N(m′, s′²)

where h and u are networks, σ is learned, and the context c(t), m′ and s′ come from an encoder that
reads the series backward. By Girsanov's theorem the paths' divergence is E ∫ ‖u‖² dt / 2, and the
loss is minus the lower bound of the likelihood of the values, by one path of the posterior.

X. Li, T.-K. L. Wong, R. T. Q. Chen and D. Duvenaud, *Scalable Gradients for Stochastic
Differential Equations* (2020), arXiv:2001.01328, section 5.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from .. import solvers
from ..models import Recurrent, SmoothMLP
from ..problem import Problem, PyTree, Source, batched, example_key
from .common import in_precision_of, kl, negative_log_density
from .stochastic_series import DOUBLE_WELL, LORENZ, Process, observe

BAND = 0.9  # probability of the bands that predict
_SAMPLES = 39  # of which the second smallest and the second largest make such a band
_BOUNDS = 4  # samples of the lower bound, to judge by
_SUBSTEPS = 4  # from one observation to the next
_DRAWN = 200  # samples for the picture


def latent_sde(
    name: str,
    source: Source,
    *,
    process: Process,
    train: int,
    test: int,
    seen: int,
    later: int,
    latent: int,
    width: int,
    batch_size: int,
    epochs: int,
    solve: Callable[..., jax.Array] = solvers.euler_maruyama,
) -> Problem:
    """Make the problem of learning a random process from series.

    The loss is in nats for each value. Measured are it, by fixed samples, and the bands of
    probability 0.9 that predict what comes after the series: `band_coverage`, the part of values
    within them, which is 0.9 if the process was learned, and `band_width`.

    Args:
      name: of the problem.
      source: of no use, as the data are drawn.
      process: what draws them.
      train: number of series to learn from.
      test: number of series to judge by.
      seen: times of a series that are learned from.
      later: times after those, to be predicted.
      latent: size of z.
      width: of the hidden layers and of the encoder.
      batch_size: default batch size.
      epochs: default number of epochs.
      solve: as `solvers.euler_maruyama`, the default.
    """
    del source
    dt, before, after = process.gap / _SUBSTEPS, _SUBSTEPS * (seen - 1), _SUBSTEPS * later
    encoder: Any = Recurrent(width, reverse=True)
    start: Any = nn.Dense(2 * latent)
    context: Any = nn.Dense(latent)
    prior: Any = SmoothMLP((width,), latent)
    control: Any = SmoothMLP((width,), latent)
    emission: Any = nn.Dense(process.size)

    def init(key: jax.Array) -> PyTree:
        keys = jax.random.split(key, 6)
        z, state = jnp.zeros(latent), jnp.zeros(width)
        return {
            "encoder": encoder.init(keys[0], jnp.zeros((1, process.size)), jnp.ones(1, bool)),
            "start": start.init(keys[1], state),
            "context": context.init(keys[2], state),
            "prior": prior.init(keys[3], z),
            "control": control.init(keys[4], jnp.zeros(2 * latent)),
            "emission": emission.init(keys[5], z),
            "prior_start": {"mean": z, "log_deviation": z},
            "log_diffusion": z - 0.5,
        }

    def steer(params: PyTree, z: jax.Array, about: jax.Array) -> jax.Array:
        """What is added to the drift by having seen the series, u."""
        return control.apply(params["control"], jnp.concatenate([z, about], axis=-1))

    def posterior(params: PyTree, value: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """A path (steps + 1, latent), and minus the lower bound, per value, that it estimates."""
        start_key, path_key = jax.random.split(key)
        states = encoder.apply(params["encoder"], value, jnp.ones(seen, bool))
        mean, log_deviation = jnp.split(start.apply(params["start"], states[0]), 2)
        deviation, diffusion = jnp.exp(log_deviation), jnp.exp(params["log_diffusion"])
        # From one observation to the next the path knows the next and all later ones.
        about = jnp.repeat(context.apply(params["context"], states[1:]), _SUBSTEPS, axis=0)
        path = solve(
            lambda z, c: prior.apply(params["prior"], z) + diffusion * steer(params, z, c),
            lambda z: diffusion,
            mean + deviation * jax.random.normal(start_key, mean.shape, mean.dtype),
            dt,
            jax.random.normal(path_key, (before, latent), mean.dtype),
            about,
        )
        first = params["prior_start"]
        divergence = kl(mean, deviation, first["mean"], jnp.exp(first["log_deviation"]))
        divergence += jnp.sum(jnp.square(steer(params, path[:-1], about))) * dt / 2
        predicted = emission.apply(params["emission"], path[::_SUBSTEPS])
        divergence += negative_log_density(value, predicted, process.noise).sum()
        return path, divergence / value.size

    def loss(params: PyTree, example: PyTree, key: jax.Array) -> jax.Array:
        return posterior(params, in_precision_of(params, example["value"])[:seen], key)[1]

    def simulate(params: PyTree, value: jax.Array, key: jax.Array) -> jax.Array:
        """Values (seen + later, size): the series as it may have been, and as it may go on."""
        past_key, future_key, noise_key = jax.random.split(key, 3)
        past, _ = posterior(params, value[:seen], past_key)
        diffusion = jnp.exp(params["log_diffusion"])
        future = solve(
            lambda z, c: prior.apply(params["prior"], z),
            lambda z: diffusion,
            past[-1],
            dt,
            jax.random.normal(future_key, (after, latent), past.dtype),
        )
        path = jnp.concatenate([past, future[1:]])
        values = emission.apply(params["emission"], path[::_SUBSTEPS])
        return values + process.noise * jax.random.normal(noise_key, values.shape, values.dtype)

    def measure_one(params: PyTree, example: PyTree) -> dict[str, jax.Array]:
        value = in_precision_of(params, example["value"])
        keys = jax.random.split(example_key(value), _SAMPLES)
        bounds = jax.vmap(lambda key: posterior(params, value[:seen], key)[1])(keys[:_BOUNDS])
        samples = jax.vmap(partial(simulate, params, value))(keys)[:, seen:]
        low, high = band(samples)
        inside = (low <= value[seen:]) & (value[seen:] <= high)
        return {
            "loss": bounds.mean(),
            "band_coverage": inside.mean(dtype=value.dtype),
            "band_width": jnp.mean(high - low),
        }

    def plot(params: PyTree, path: Path) -> None:
        def several(value: jax.Array) -> jax.Array:
            keys = jax.random.split(example_key(value), _DRAWN)
            return jax.vmap(partial(simulate, params, value))(keys)

        shown = jnp.asarray(held_out[:6])
        samples = jax.jit(jax.vmap(several))(shown)
        _draw(name, process, seen, np.asarray(shown), np.asarray(samples), path)

    held_out = observe(process, 1, test, seen + later)
    return Problem(
        name=name,
        init=init,
        loss=loss,
        losses=batched(loss),
        measure=lambda params, batch: jax.vmap(partial(measure_one, params))(batch),
        data={"value": jnp.asarray(observe(process, 0, train, seen + later))},
        test={"value": jnp.asarray(held_out)},
        batch_size=batch_size,
        epochs=epochs,
        plot=plot,
    )


double_well = partial(
    latent_sde,
    process=DOUBLE_WELL,
    train=2_000,
    test=300,
    seen=17,
    later=8,
    latent=2,
    width=32,
    batch_size=64,
    epochs=30,
)
lorenz = partial(
    latent_sde,
    process=LORENZ,
    train=4_000,
    test=500,
    seen=41,
    later=20,
    latent=4,
    width=128,
    batch_size=256,
    epochs=400,
)


def band(samples: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Ends of the interval into which one sample more falls with probability 0.9."""
    cut = round((1 - BAND) / 2 * (samples.shape[0] + 1))
    ordered = jnp.sort(samples, axis=0)
    return ordered[cut - 1], ordered[-cut]


def _draw(
    name: str, process: Process, seen: int, value: np.ndarray, samples: np.ndarray, file: Path
) -> None:
    """The first coordinate of test series, and the bands of what was and of what comes."""
    from ..plots import figure, save

    fig = figure(10.5, 5.2)
    panels = fig.subplots(2, 3, sharex=True, sharey=True).ravel()
    time = process.gap * np.arange(value.shape[1])
    low, high = np.quantile(samples[..., 0], [(1 - BAND) / 2, (1 + BAND) / 2], axis=1)
    parts = ((slice(None, seen), "black", "seen"), (slice(seen, None), "white", "to come"))
    for index, axes in enumerate(panels):
        band = {"color": "C0", "alpha": 0.25, "lw": 0, "label": "90 % band"}
        axes.fill_between(time, low[index], high[index], **band)
        axes.plot(time, samples[index, :4, :, 0].T, color="C0", lw=0.6, alpha=0.7)
        for part, fill, label in parts:
            dots = {"s": 12, "color": fill, "edgecolor": "black", "lw": 0.8, "zorder": 3}
            axes.scatter(time[part], value[index, part, 0], label=label, **dots)
        axes.axvline(time[seen - 1], color="grey", lw=0.8, ls=":")
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("time" if index > 2 else "")
    fig.suptitle(f"{name}: test series, sampled paths, and bands")
    fig.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    save(fig, file)
