"""Which step each acquisition function chooses on a model of the loss along a line.

    Δ(α) ~ N(α s + ½ α² h,  α² p + ¼ α⁴ q)

with slope s < 0, positive or negative curvature h, and uncertainty that grows with the step.
Source: Chen et al. (2020), arXiv 2011.04803, section 4.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from ...curvature import LineBelief
from ...optimizers import (
    expected_decrease,
    improvement_threshold,
    log_expected_improvement,
    probability_of_improvement,
)
from .. import plots
from .claims import Claims, Reproduction, Verdict, check, table
from .trainings import log

FULL, QUICK = {"models": 2000}, {"models": 200}
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
SCENES = {  # curvature, variances of slope, curvature and value; the slope is −1
    "positive curvature, little noise": (1.0, 0.01, 0.02, 0.005),
    "positive curvature, much noise": (1.0, 0.3, 0.6, 0.05),
    "negative curvature, little noise": (-0.5, 0.01, 0.02, 0.005),
    "negative curvature, much noise": (-0.5, 0.3, 0.6, 0.05),
}
Steps = dict[str, dict[str, float]]  # by scene and rule


def run(models: int, *, seeds: int) -> Reproduction:
    """Maximize every acquisition on drawn scenes and on random models."""
    log.info("random models")
    chosen = compute(models, seeds)
    steps = {
        scene: {
            rule: float(maximize(rule, falling_line(*numbers), RADIUS / jnp.abs(numbers[0])))
            for rule in RULES
        }
        for scene, numbers in SCENES.items()
    }
    by_reach = {"reach": REACHES, "mean step over reach": chosen["EI by reach"].mean((0, 1))}
    newton_steps = {
        scene: {rule: step * abs(SCENES[scene][0]) for rule, step in by_rule.items()}
        for scene, by_rule in steps.items()
    }
    title = f"chosen steps, in Newton steps −s/|h|, within a trust region of {RADIUS:g}"
    data = {"steps": steps, "EI by reach": by_reach}
    return Reproduction(draw(steps), judge(chosen), data, {title: table("model", newton_steps)})


def compute(models: int, seeds: int) -> dict[str, np.ndarray]:
    """Steps on random models, in Newton steps, each of shape (seeds, models)."""

    def draw_models(key: jax.Array) -> dict[str, jax.Array]:
        noise = 10.0 ** jax.random.uniform(key, (3, models), minval=-3.0, maxval=1.0)
        one = jnp.ones(models)
        up = falling_line(one, *noise)
        half = jax.tree.map(lambda x, y: (x + y) / 2, up, falling_line(one, *(0 * noise)))
        down = up._replace(curvature=-one)
        calm = up._replace(value_variance=1e-8 * one, curvature_variance=0 * one)

        def best(rule: str, belief: LineBelief, reach: float) -> jax.Array:
            return jax.vmap(lambda line: maximize(rule, line, jnp.asarray(reach)))(belief)

        # At the end of a long interval the resolution is best where its reach is short.
        return {
            "PI": best("PI", up, 3.0),
            "EI": best("EI", up, 3.0),
            "EI less noise": best("EI", half, 3.0),
            "PI without value noise": best("PI", calm, 3.0),
            "PI down": best("PI", down, 1e3),
            "quadratic down": best("quadratic", down, 1e3),
            "EI by reach": jnp.stack([best("EI", up, reach) / reach for reach in REACHES], -1),
            "uncertain": jnp.sqrt(up.curvature_variance) >= UNCERTAIN,
        }

    keys = jax.random.split(jax.random.key(2020), seeds)
    return {name: np.asarray(v) for name, v in jax.jit(jax.vmap(draw_models))(keys).items()}


def falling_line(
    curvature: Any, slope_variance: Any, curvature_variance: Any, value_variance: Any
) -> LineBelief:
    """A line that falls with a slope of −1."""
    zero = jnp.zeros_like(curvature)
    return LineBelief(
        value=zero,
        value_variance=zero + value_variance,
        slope=zero - 1,
        slope_variance=zero + slope_variance,
        curvature=zero + curvature,
        curvature_variance=zero + curvature_variance,
        covariance=zero,
    )


def maximize(rule: str, belief: LineBelief, reach: jax.Array) -> jax.Array:
    """Maximizer over (0, reach], on a logarithmic grid and a linear one between its neighbors."""
    grid = reach * jnp.logspace(-_DECADES, 0, _POINTS)
    best = jnp.argmax(RULES[rule](belief, grid))
    left, right = grid[jnp.maximum(best - 1, 0)], grid[jnp.minimum(best + 1, _POINTS - 1)]
    finer = jnp.linspace(left, right, _POINTS)
    return finer[jnp.argmax(RULES[rule](belief, finer))]


def judge(chosen: dict[str, np.ndarray]) -> Claims:
    """Parts of the random models on which what is said is so."""

    def always(holds: np.ndarray) -> Verdict:
        return check(holds.mean(axis=1), at_least=1)

    uncertain = chosen["uncertain"]
    to_the_end = (chosen["EI by reach"][..., -1] > 0.99) & uncertain
    return {
        "PI never steps beyond the Newton step −s/h where the curvature is positive (part of "
        "random models)": always(chosen["PI"] <= 1 + TOLERANCE),
        "the step of PI goes to 0 with the noise of the loss values (mean step at a "
        "variance of 10⁻⁸, in Newton steps, at most 0.05)": check(
            chosen["PI without value noise"].mean(axis=1), at_most=0.05
        ),
        "EI never steps less far than the Newton step (part of random models)": always(
            chosen["EI"] >= 1 - TOLERANCE
        ),
        "EI steps farther where there is more noise (part of random models, all noise halved)": (
            always(chosen["EI"] >= chosen["EI less noise"] * (1 - TOLERANCE))
        ),
        f"without a trust region EI is unbounded: in an interval of {REACHES[-1]:g} Newton "
        f"steps it goes to the end (part of the random models whose curvature is uncertain by "
        f"{UNCERTAIN:.0%} or more; for others the end is still farther)": check(
            to_the_end.sum(axis=1) / np.maximum(uncertain.sum(axis=1), 1), at_least=1
        ),
        "where the curvature is negative, PI stays finite while the quadratic rule goes to the "
        "end of any interval (part of random models, 1,000 Newton steps)": always(
            (chosen["PI down"] < 990) & (chosen["quadratic down"] > 990)
        ),
    }


def draw(steps: Steps) -> Figure:
    title = "Steps chosen on a model of the loss along a line"
    figure, places = plots.panels(title, 2, 2, 11, 6.6)
    for axes, (name, scene) in zip(places, SCENES.items(), strict=True):
        belief, reach = falling_line(*scene), RADIUS / abs(scene[0])
        alpha = jnp.linspace(0, 1.15 * reach, 200)
        change = np.asarray(belief.change(alpha))
        std = np.sqrt(belief.change_variance(alpha))
        axes.plot(alpha, change, color="0.13", lw=1.5)
        for width in (std, 2 * std):
            axes.fill_between(alpha, change - width, change + width, color="0.5", alpha=0.16, lw=0)
        axes.axhline(0, color="0.6", lw=0.8)
        axes.axvline(reach, color="0.3", ls=":", lw=1.2, label="end of the trust region")
        for index, (rule, step) in enumerate(steps[name].items()):
            height = float(belief.change(jnp.asarray(step)))
            size = 13 - 2 * index  # markers may lie on each other
            axes.plot(step, height, "osD^"[index], ms=size, label=rule)
        margin = 0.6 * np.ptp(change)
        axes.set(title=name, xlabel="step α", ylabel="change of the loss Δ(α)")
        axes.set_ylim(change.min() - margin, change.max() + margin)
    plots.legend_below(figure, places[0], len(RULES) + 1)
    return figure
