"""How many steps the best of all settings of Adam needs for what ours reaches untuned.

`learned_optimization` judges an optimizer by its speed-up over an envelope: the lowest loss that
any setting of Adam has reached after each number of steps. The speed-up after n steps is

    min {t : envelope(t) ≤ our loss after n steps} / n.

No single setting trains along the envelope, which is an oracle: each step has its own best rate,
chosen by the very loss that is compared. Ours is one training, read at every horizon. The published
envelopes hold rates that do not fall to 0; here linear and cosine decays to 0 at each horizon are
added, and nothing is smoothed, both of which is in Adam's favor.
Source: google/learned_optimization, `baselines/normalizers.py`; L. Metz et al. (2022),
arXiv:2203.11860.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from .. import plots
from ..problem import Problem
from ..records import AVERAGE, LAST, Records, Run
from ..registry import OPTIMIZERS, Optimizer, Setting
from .claims import Claims, Reproduction, check, check_ratio, over_seeds, table
from .trainings import load, records

FULL = {  # problem, training examples, rates
    "problems": (
        ("mnist-mlp-128x3|digits", 48_000, (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)),
        ("mnist-autoencoder-128|digits-vae", 48_000, (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)),
    ),
    "horizons": (1000, 2000, 10_000), "every": 100, "eval_examples": 10_000,
}  # fmt: skip
QUICK = {
    "problems": (
        ("mnist-mlp-128x3|digits", 4000, (3e-3, 1e-2, 3e-2)),
        ("mnist-autoencoder-128|digits-vae", 4000, (3e-3, 1e-2, 3e-2, 1e-1)),
    ),
    "horizons": (40, 120), "every": 20, "eval_examples": 500,
}  # fmt: skip
# The first 48,000 images are the 80 % that the tasks train on. The envelope of their losses after
# so many steps, interpolated as its authors do: `speedup_over_multiple_baselines.json`, keys
# ImageMLP_Mnist_128x128x128_Relu and ImageMLPAE_Mnist_128x32x128_bs128.
PUBLISHED = {
    "mnist-mlp-128x3": {1000: 0.10688, 2000: 0.04979, 10_000: 4.722e-4},
    "mnist-autoencoder-128": {1000: 0.016664, 2000: 0.011133, 10_000: 0.006725},
}
TOLERANCE = 1.15  # between their envelope and ours, by a factor
# The published curves are evaluated at every tenth step and averaged with this decay: they lag.
SMOOTHING, INTERVAL = 0.95, 10
WARM_UP = 1000  # steps
SCHEDULES = ("constant", "warm-up", "linear", "cosine")
_ENDLESS = 2  # so many of them, the published ones, are the same for every horizon
OURS = OPTIMIZERS["adameka"]


def adam(setting: Setting, steps: int) -> optax.GradientTransformationExtraArgs:
    """Adam with a rate on a schedule; both may be traced.

    The warm-up is linear, and the rate then falls with the root of the number of steps; linear and
    cosine schedules fall to 0 at the end.
    """

    def rate(count: Any) -> Any:
        step, part = jnp.maximum(count, 1) / WARM_UP, count / steps
        factors = jnp.stack([
            jnp.ones_like(part), jnp.minimum(step, step**-0.5),
            1 - part, 0.5 * (1 + jnp.cos(jnp.pi * part)),
        ])  # fmt: skip
        return setting["learning_rate"] * factors[jnp.int32(setting["schedule"])]

    direction = optax.scale_by_adam(eps_root=1e-8)  # their default
    return optax.with_extra_args_support(optax.chain(direction, optax.scale_by_learning_rate(rate)))


ADAM = Optimizer("adam of learned_optimization", adam)


class Curve(NamedTuple):
    """A setting of Adam: rate, schedule, the step at which it ends, and losses (evaluations,)."""

    rate: float
    schedule: int
    end: int
    losses: np.ndarray

    def __str__(self) -> str:
        return f"{self.rate:g} {SCHEDULES[self.schedule]}"


def run(
    problems: Sequence[tuple[str, int | None, Sequence[float]]],
    horizons: Sequence[int],
    every: int,
    **budget: Any,
) -> Reproduction:
    """Sweep Adam, train ours, and count the steps that the envelope needs."""
    budget |= {"every": every}
    found, claims, tables = {}, {}, {}
    for names, examples, rates in problems:
        problem = load(names, examples, 1)  # nothing is read off the test examples
        swept = sweep(problem, rates, horizons, **budget)
        trained = _train(problem, OURS, [{}], steps=horizons[-1], **budget)
        ours = {name: trained.array("train_loss", name)[0] for name in (LAST, AVERAGE)}
        step = np.arange(0, horizons[-1] + 1, every)
        found[problem.name] = {"step": step, "envelope": envelope(swept), **ours}
        claims |= judge(problem.name, horizons, every, swept, ours)
        rows = {f"{n:,}": row(problem.name, n, every, swept, ours) for n in horizons}
        title = f"{problem.name}: train loss after so many steps, mean over the seeds"
        tables[title] = table("steps", rows)
    data = {name: over_seeds(curves) for name, curves in found.items()}
    return Reproduction(draw(found), claims, data, tables)


def sweep(
    problem: Problem, rates: Sequence[float], horizons: Sequence[int], **budget: Any
) -> list[Curve]:
    """Every rate and schedule, those that fall to 0 for each horizon; means over the seeds."""
    kinds = range(len(SCHEDULES))
    plans = [(horizons[-1], kinds[:_ENDLESS]), *((end, kinds[_ENDLESS:]) for end in horizons)]
    curves = []
    for end, some in plans:
        settings = [{"learning_rate": rate, "schedule": kind} for kind in some for rate in rates]
        losses = _train(problem, ADAM, settings, steps=end, **budget).array("train_loss").mean(1)
        curves += [
            Curve(setting["learning_rate"], setting["schedule"], end, values)
            for setting, values in zip(settings, losses, strict=True)
        ]
    return curves


def _train(
    problem: Problem,
    optimizer: Optimizer,
    settings: Sequence[Setting],
    *,
    seeds: int,
    steps: int,
    every: int,
    eval_examples: int,
) -> Records:
    return records(
        problem,
        optimizer,
        [Run(setting, seed) for setting in settings for seed in range(seeds)],
        label=f"{optimizer.name}, {steps} steps",
        steps=steps,
        batch_size=problem.batch_size,
        evaluations=range(0, steps + 1, every),
        eval_examples=eval_examples,
    )


def envelope(curves: Sequence[Curve]) -> np.ndarray:
    """The lowest loss that any curve has reached by each evaluation; some end before others.

    Example:
      >>> short, long = np.array([3.0, 1.0]), np.array([3.0, 2.0, 0.5])
      >>> envelope([Curve(0.1, 0, 1, short), Curve(1.0, 0, 2, long)]).tolist()
      [3.0, 1.0, 0.5]
    """
    length = max(len(curve.losses) for curve in curves)
    lowest = np.full(length, np.inf)
    for curve in curves:
        part = lowest[: len(curve.losses)]
        np.fmin(part, curve.losses, out=part)  # what is not a number is no minimum
    return np.minimum.accumulate(lowest)


def smoothed(curve: Curve, every: int) -> Curve:
    """The curve as they are published: a moving average, read at the same steps."""
    step = np.arange(len(curve.losses)) * every
    fine = np.arange(0, step[-1] + 1, INTERVAL)
    # A loss that falls exponentially in between; straight lines would lie above it.
    values = np.exp(np.interp(fine, step, np.log(curve.losses)))
    for place in range(1, len(values)):
        values[place] = SMOOTHING * values[place - 1] + (1 - SMOOTHING) * values[place]
    return curve._replace(losses=np.interp(step, fine, values))


def as_published(curves: Sequence[Curve], every: int) -> np.ndarray:
    """The envelope of the smoothed curves with schedules that are published."""
    return envelope([smoothed(c, every) for c in curves if c.schedule < _ENDLESS])


def steps_needed(losses: np.ndarray, lowest: np.ndarray, every: int) -> np.ndarray:
    """Steps after which the envelope is as low as each loss, interpolated in its logarithm.

    Where it never is, the last of its steps: as many at least. Where a loss is not finite, none.
    """
    step = np.arange(len(lowest)) * every
    depth = -np.log(np.where(np.isfinite(losses), np.maximum(losses, 1e-30), np.inf))
    return np.interp(depth, -np.log(np.maximum(lowest, 1e-30)), step)


def speed_up(losses: np.ndarray, horizon: int, curves: Sequence[Curve], every: int) -> np.ndarray:
    """Steps that the envelope needs for the losses after the horizon, over the horizon; by seed."""
    return steps_needed(losses[:, horizon // every], envelope(curves), every) / horizon


def best_at(curves: Sequence[Curve], horizon: int, every: int) -> Curve:
    """The curve that is lowest after the horizon."""
    there = [curve for curve in curves if curve.end >= horizon]
    return min(there, key=lambda curve: np.nan_to_num(curve.losses[horizon // every], nan=np.inf))


def judge(
    problem: str,
    horizons: Sequence[int],
    every: int,
    swept: Sequence[Curve],
    ours: dict[str, np.ndarray],
) -> Claims:
    """Is the task theirs, is the envelope wide enough, and does ours keep up with it?"""
    rates = sorted({curve.rate for curve in swept})
    best = [best_at(swept, n, every).rate for n in horizons]
    claims = {}
    for n in horizons:
        if n in PUBLISHED.get(problem, {}):
            ratio = as_published(swept, every)[n // every] / PUBLISHED[problem][n]
            claims[
                f"{problem}: schedules and smoothing as published give the published envelope "
                f"after {n:,} steps (between 1/{TOLERANCE:g} and {TOLERANCE:g} times)"
            ] = check_ratio([ratio], at_least=1 / TOLERANCE, at_most=TOLERANCE)
    inside = [rates[0] < rate < rates[-1] for rate in best]
    claims[f"{problem}: the best rate of every horizon lies inside the sweep"] = check(
        np.asarray(inside, float), at_least=1
    )
    for name, losses in ours.items():
        for n in horizons:
            claims[
                f"{problem}: untuned, the {name} iterate of ours is as fast as the envelope after "
                f"{n:,} steps (speed-up at least 1)"
            ] = check_ratio(speed_up(losses, n, swept, every), at_least=1)
    return claims


def row(
    problem: str, horizon: int, every: int, swept: Sequence[Curve], ours: dict[str, np.ndarray]
) -> dict[str, Any]:
    """What the table shows of a horizon."""
    place = horizon // every
    published = PUBLISHED.get(problem, {}).get(horizon)
    cells: dict[str, Any] = {
        "published": published if published else "–",
        "as published": as_published(swept, every)[place],
        "envelope": envelope(swept)[place],
        "its best": str(best_at(swept, horizon, every)),
    }
    end = envelope(swept)[-1]
    for name, losses in ours.items():
        beyond = "> " if np.any(losses[:, place] < end) else ""
        times = np.mean(speed_up(losses, horizon, swept, every))
        cells |= {
            f"ours, {name}": losses[:, place].mean(),
            f"speed-up, {name}": f"{beyond}{times:.2f}",
        }
    return cells


def draw(found: dict[str, dict[str, np.ndarray]]) -> Figure:
    shown = {
        problem: {
            "envelope of Adam": (curves["step"], curves["envelope"][None]),
            **{f"ours, {name}": (curves["step"], curves[name]) for name in (LAST, AVERAGE)},
        }
        for problem, curves in found.items()
    }
    title = "Ours, untuned, and the best of all settings of Adam at every step"
    figure, places = plots.band_panels(title, shown, len(shown), 10, 4.6)
    for axes, (problem, curves) in zip(places, found.items(), strict=True):
        published = PUBLISHED.get(problem, {})
        known = [n for n in published if n <= curves["step"][-1]]
        axes.plot(known, [published[n] for n in known], "k+", ms=9)  # published
    places[0].set_ylabel("train loss")
    return figure
