"""Which step each acquisition function chooses on a model of the loss along a line.

    Δ(α) ~ N(α s + ½ α² h,  α² p + ¼ α⁴ q)

with slope s < 0, positive or negative curvature h, and uncertainty that grows with the step.
Source: Chen et al. (2020), arXiv 2011.04803, section 4.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...curvature import LineBelief
from ...optimizers import (
    expected_decrease,
    improvement_threshold,
    log_expected_improvement,
    probability_of_improvement,
)
from . import drawing
from .claims import Claim, Reproduction, Table, check, short
from .registry import Report, quiet

RADIUS = 3.0  # of the trust region of the picture, in Newton steps −s/|h|
PROBABILITY = 0.75  # of the threshold rule; 0.9 would not move on the most uncertain model
TOLERANCE = 2e-3  # of the maximizer, relative
_POINTS = 200  # of each of the two grids that find it
_DECADES = 4
UNCERTAIN = 0.3  # standard deviation of the curvature over its mean
REACHES = (1e1, 1e2, 1e3, 1e4, 1e5)  # ends of the interval that EI follows, in Newton steps
RULES = {
    "quadratic": expected_decrease,
    "PI": probability_of_improvement,
    "EI": log_expected_improvement,
    f"threshold {PROBABILITY:g}": improvement_threshold(PROBABILITY),
}
_COLORS = dict(zip(RULES, drawing.CYCLE, strict=False))
# (title, h, p, q, variance of the value), the slope being −1.
SCENES = (
    ("positive curvature, little noise", 1.0, 0.01, 0.02, 0.005),
    ("positive curvature, much noise", 1.0, 0.3, 0.6, 0.05),
    ("negative curvature, little noise", -0.5, 0.01, 0.02, 0.005),
    ("negative curvature, much noise", -0.5, 0.3, 0.6, 0.05),
)


class Size(NamedTuple):
    """How much to compute: random models of the loss per seed."""

    models: int


FULL, QUICK = Size(models=2000), Size(models=200)


def run(out: Path, quick: bool, seeds: int, report: Report = quiet) -> Reproduction:
    """Maximize every acquisition on drawn scenes and on random models."""
    size = QUICK if quick else FULL
    report("random models")
    chosen = compute(size, seeds)
    scenes = [_steps(_scene(scene), RADIUS) for scene in SCENES]
    _draw(out, scenes, quick)
    return Reproduction(
        settings={
            "radius_in_newton_steps": RADIUS,
            "threshold": PROBABILITY,
            **size._asdict(),
            "seeds": seeds,
            "quick": quick,
        },
        data={
            "steps": {scene[0]: short(s) for scene, s in zip(SCENES, scenes, strict=True)},
            "EI by reach": {
                "reach": REACHES,
                "mean step over reach": short(chosen["EI by reach"].mean((0, 1))),
            },
        },
        claims=judge(chosen),
        tables=[
            Table(
                f"chosen steps, in Newton steps −s/|h|, within a trust region of {RADIUS:g}",
                ("model", *RULES),
                [
                    (scene[0], *(f"{steps[name] * abs(scene[1]):.3g}" for name in RULES))
                    for scene, steps in zip(SCENES, scenes, strict=True)
                ],
            )
        ],
    )


def compute(size: Size, seeds: int) -> dict[str, np.ndarray]:
    """Steps on random models, in Newton steps, each of shape (seeds, models)."""

    def draw(key: jax.Array) -> dict[str, jax.Array]:
        noise = 10.0 ** jax.random.uniform(key, (3, size.models), minval=-3.0, maxval=1.0)
        one = jnp.ones(size.models)
        up = _belief(one, *noise)
        down = up._replace(curvature=-one)
        calm = up._replace(value_variance=1e-8 * one, curvature_variance=0 * one)

        def far(rule: str, belief: LineBelief, reach: float) -> jax.Array:
            return jax.vmap(lambda one: _maximize(rule, one, jnp.asarray(reach)))(belief)

        # At the end of a long interval the resolution is best where its reach is short.
        return {
            "PI": far("PI", up, 3.0),
            "EI": far("EI", up, 3.0),
            "EI less noise": far(
                "EI", jax.tree.map(lambda x, y: (x + y) / 2, up, _certain(up)), 3.0
            ),
            "PI without value noise": far("PI", calm, 3.0),
            "PI down": far("PI", down, 1e3),
            "EI down": far("EI", down, 1e3),
            "quadratic down": far("quadratic", down, 1e3),
            "EI by reach": jnp.stack([far("EI", up, reach) / reach for reach in REACHES], -1),
            "uncertain": jnp.sqrt(up.curvature_variance) >= UNCERTAIN,
        }

    return {k: np.asarray(v) for k, v in jax.jit(jax.vmap(draw))(_keys(seeds)).items()}


def judge(chosen: dict[str, np.ndarray]) -> list[Claim]:
    """Parts of the random models on which what is said is so."""

    def share(holds: np.ndarray) -> np.ndarray:
        return holds.mean(axis=1)

    to_the_end = (chosen["EI by reach"][..., -1] > 0.99) & chosen["uncertain"]
    unbounded = to_the_end.sum(axis=1) / np.maximum(chosen["uncertain"].sum(axis=1), 1)
    return [
        check(
            "PI never steps beyond the Newton step −s/h where the curvature is positive (part of "
            "random models)",
            share(chosen["PI"] <= 1 + TOLERANCE),
            at_least=1,
        ),
        check(
            "the step of PI goes to 0 with the noise of the loss values (mean step at a "
            "variance of 10⁻⁸, in Newton steps, at most 0.05)",
            chosen["PI without value noise"].mean(axis=1),
            at_most=0.05,
        ),
        check(
            "EI never steps less far than the Newton step (part of random models)",
            share(chosen["EI"] >= 1 - TOLERANCE),
            at_least=1,
        ),
        check(
            "EI steps farther where there is more noise (part of random models, all noise halved)",
            share(chosen["EI"] >= chosen["EI less noise"] * (1 - TOLERANCE)),
            at_least=1,
        ),
        check(
            f"without a trust region EI is unbounded: in an interval of {REACHES[-1]:g} Newton "
            f"steps it goes to the end (part of the random models whose curvature is uncertain by "
            f"{UNCERTAIN:.0%} or more; for others the end is still farther)",
            unbounded,
            at_least=1,
        ),
        check(
            "where the curvature is negative, PI stays finite while the quadratic rule goes to the "
            "end of any interval (part of random models, 1,000 Newton steps)",
            share((chosen["PI down"] < 990) & (chosen["quadratic down"] > 990)),
            at_least=1,
        ),
    ]


def _keys(seeds: int) -> jax.Array:
    return jax.random.split(jax.random.key(2020), seeds)


def _belief(
    curvature: jax.Array,
    slope_variance: jax.Array,
    curvature_variance: jax.Array,
    value_variance: jax.Array,
) -> LineBelief:
    """A line that falls with a slope of −1."""
    zero = jnp.zeros_like(curvature)
    return LineBelief(
        value=zero,
        value_variance=value_variance,
        slope=zero - 1,
        slope_variance=slope_variance,
        curvature=curvature,
        curvature_variance=curvature_variance,
        covariance=zero,
    )


def _certain(belief: LineBelief) -> LineBelief:
    """The same belief without uncertainty."""
    zero = jnp.zeros_like(belief.slope)
    return _belief(belief.curvature, zero, zero, zero)


def _scene(scene: tuple[str, float, float, float, float]) -> LineBelief:
    return _belief(*map(jnp.asarray, scene[1:]))


def _maximize(rule: str, belief: LineBelief, reach: jax.Array) -> jax.Array:
    """Maximizer over (0, reach], on a logarithmic grid and a linear one between its neighbors."""
    grid = reach * jnp.logspace(-_DECADES, 0, _POINTS)
    best = jnp.argmax(RULES[rule](belief, grid))
    left, right = grid[jnp.maximum(best - 1, 0)], grid[jnp.minimum(best + 1, _POINTS - 1)]
    finer = jnp.linspace(left, right, _POINTS)
    return finer[jnp.argmax(RULES[rule](belief, finer))]


def _steps(belief: LineBelief, newton_steps: float) -> dict[str, float]:
    reach = newton_steps / jnp.abs(belief.curvature)
    return {name: float(_maximize(name, belief, reach)) for name in RULES}


def _draw(out: Path, scenes: list[dict[str, float]], quick: bool) -> None:
    figure = drawing.figure("Steps chosen on a model of the loss along a line", quick, 11, 6.6)
    places = drawing.grid(figure, 2, len(SCENES))
    for axes, scene, steps in zip(places, SCENES, scenes, strict=True):
        belief = _scene(scene)
        reach = RADIUS / abs(scene[1])
        at = jnp.linspace(0, 1.15 * reach, 200)
        change, std = np.asarray(belief.change(at)), np.sqrt(belief.change_variance(at))
        axes.plot(at, change, color=drawing.BLACK, lw=1.5)
        for width in (1, 2):
            axes.fill_between(
                at, change - width * std, change + width * std, color="0.5", alpha=0.16, lw=0
            )
        axes.axhline(0, color="0.6", lw=0.8)
        axes.axvline(reach, color="0.3", ls=":", lw=1.2, label="end of the trust region")
        for place, (name, step) in enumerate(steps.items()):
            height = float(belief.change(jnp.asarray(step)))
            size = 13 - 2 * place  # markers may lie on each other
            axes.plot(step, height, "osD^"[place], color=_COLORS[name], ms=size, label=name)
        low, high = change.min(), change.max()
        room = 0.6 * (high - low)
        axes.set(title=scene[0], xlabel="step α", ylabel="change of the loss Δ(α)")
        axes.set_ylim(low - room, high + room)
        axes.title.set_fontsize(10)
    drawing.legend_below(figure, places[0], len(RULES) + 1)
    drawing.save(figure, out, "acquisitions")
