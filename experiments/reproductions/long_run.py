"""Whether a run of days stays sound: what may drift in 200,000 steps on fresh, noisy batches.

A small network learns another in float32 and in bfloat16. The loop returns to the host every
hundred steps, like a real one; the standard deviations that the filters believe in, the counters,
the loss, memory and speed are read now and then.
"""

import functools
import resource
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from ...optimizers import adameka, meka, metrics
from .. import plots
from ..train import Carry, one_step
from .claims import Claims, Reproduction, check, check_ratio, table
from .trainings import Makers, Transformation, log

FULL, QUICK = {"steps": 200_000}, {"steps": 8_000}
READINGS = 20
CHUNK = 100  # steps between returns to the host
WIDTH = 16
BATCH_SIZE = 32
NOISE = 0.3
OPTIMIZERS: Makers = {"meka": meka, "adameka": adameka}
DTYPES = ("float32", "bfloat16")
STDS = ("slope_std", "curvature_std", "loss_std")
Readings = dict[str, np.ndarray]  # of shape (seeds, readings)


def run(steps: int, *, seeds: int) -> Reproduction:
    """Train with both optimizers in both precisions, and compare the end with the beginning."""
    found: dict[str, Readings] = {}
    claims = {}
    for name, make in OPTIMIZERS.items():
        for dtype in DTYPES:
            label = f"{name}, {dtype}"
            log.info(label)
            runs = [watch(make(), jnp.dtype(dtype), steps, seed) for seed in range(seeds)]
            found[label] = {key: np.stack([run[key] for run in runs]) for key in runs[0]}
            claims |= judge(label, found[label])
    rows = {label: cells(readings) for label, readings in found.items()}
    tables = {"first and last reading, and ranges, of the first seed": table("training", rows)}
    return Reproduction(draw(found), claims, data=found, tables=tables)


def watch(tx: Transformation, dtype: Any, steps: int, seed: int = 0) -> Readings:
    """Train, and read all metrics, the mean loss, speed and memory every now and then."""
    carry, advance = training(tx, dtype, seed)
    key = jax.random.key(seed + 1)
    carry, _ = advance(carry, jax.random.fold_in(key, 0))  # compiles; these steps count as well
    readings: dict[str, list[float]] = {}
    done = CHUNK
    for reading in range(1, READINGS + 1):
        losses, clock, before = [], time.perf_counter(), done
        while done < reading * steps // READINGS:
            carry, loss = advance(carry, jax.random.fold_in(key, done))
            losses.append(float(loss))
            done += CHUNK
        values = {
            "step": done,
            "loss": np.mean(losses),
            "microseconds": 1e6 * (time.perf_counter() - clock) / (done - before),
            "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "arrays": len(jax.live_arrays()),
            **jax.device_get(metrics(carry.state)),
        }
        for name, value in values.items():
            readings.setdefault(name, []).append(float(value))
    return {name: np.array(values) for name, values in readings.items()}


def training(
    tx: Transformation, dtype: Any, seed: int
) -> tuple[Carry, Callable[[Carry, jax.Array], tuple[Carry, jax.Array]]]:
    """The beginning of a training, and CHUNK compiled steps of it."""
    keys = jax.random.split(jax.random.key(seed), 4)
    shapes = ((WIDTH, WIDTH), (WIDTH, 1))
    teacher, params = (
        [jax.random.normal(key, shape) for key, shape in zip(two, shapes, strict=True)]
        for two in (keys[:2], keys[2:])
    )
    params = [(leaf / WIDTH**0.5).astype(dtype) for leaf in params]

    def outputs(params: Any, x: jax.Array) -> jax.Array:
        return (jnp.tanh(x @ params[0]) @ params[1])[:, 0]

    def losses(params: Any, batch: tuple[jax.Array, jax.Array], key: jax.Array) -> jax.Array:
        x, y = batch
        return jnp.square(outputs(params, x.astype(dtype)) - y)

    step = one_step(losses, optax.with_extra_args_support(tx))

    def on_fresh_batch(carry: Carry, key: jax.Array) -> tuple[Carry, jax.Array]:
        data, noise = jax.random.split(key)
        x = jax.random.normal(data, (BATCH_SIZE, WIDTH))
        y = outputs(teacher, x) + NOISE * jax.random.normal(noise, (BATCH_SIZE,))
        carry, records = step(carry, (x, y))
        return carry, records["loss"]

    @functools.partial(jax.jit, donate_argnums=0)
    def advance(carry: Carry, key: jax.Array) -> tuple[Carry, jax.Array]:
        carry, losses = jax.lax.scan(on_fresh_batch, carry, jax.random.split(key, CHUNK))
        return carry, losses.mean()

    return Carry(params, tx.init(params), jax.random.key(0), jnp.zeros((), jnp.int32)), advance


def judge(label: str, readings: Readings) -> Claims:
    """Hold what may drift to bounds."""
    stds = np.stack([readings[name] for name in STDS], axis=1)  # (seeds, names, readings)
    widest = (stds.max(axis=2) / stds.min(axis=2)).max(axis=1)
    first, last = ({name: values[:, end] for name, values in readings.items()} for end in (0, -1))
    quarter = max(1, readings["step"].shape[1] // 4)

    def last_over_first(name: str) -> np.ndarray:
        ends = readings[name][:, :quarter], readings[name][:, -quarter:]
        early, late = (np.median(values, axis=1) for values in ends)
        return late / early

    return {
        f"{label}: no step is rejected": check(last["num_rejected"], at_most=0),
        f"{label}: no standard deviation vanishes or grows: the largest is at most 1000 times "
        "the smallest (widest of slope, curvature and loss)": check_ratio(widest, at_most=1000),
        f"{label}: the loss does not rise (last quarter over first, at most 1)": check_ratio(
            last_over_first("loss"), at_most=1
        ),
        f"{label}: steps do not become slower (last quarter at most 1.5 times the first)": (
            check_ratio(last_over_first("microseconds"), at_most=1.5)
        ),
        f"{label}: peak memory does not grow (at most 1.1 times)": check_ratio(
            last["megabytes"] / first["megabytes"], at_most=1.1
        ),
        f"{label}: no arrays are left over (more at the end than at the first reading)": check(
            last["arrays"] - first["arrays"], at_most=0
        ),
    }


def cells(readings: Readings) -> dict[str, str]:
    names = ("loss", "radius", "microseconds", "megabytes", "arrays")
    return {
        "steps": f"{readings['step'][0, -1]:,.0f}",
        "rejected": f"{readings['num_rejected'][0, -1]:.0f}",
        **{name: "{:.4g} → {:.4g}".format(*readings[name][0, [0, -1]]) for name in names},
        **{name: f"{readings[name][0].min():.2g}–{readings[name][0].max():.2g}" for name in STDS},
    }


def draw(found: dict[str, Readings]) -> Figure:
    shown = {
        name: {label: (readings["step"][0], readings[name]) for label, readings in found.items()}
        for name in ("loss", "radius", *STDS, "microseconds")
    }
    return plots.band_panels("A long run on fresh batches", shown, 3, 11, 6.4)[0]
