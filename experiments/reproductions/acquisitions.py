"""Which step each acquisition function chooses on a model of the loss along a line.

    Δ(α) ~ N(−α a + ½ α² h,  2s + α² p + ¼ α⁴ q)

with positive and with negative curvature h, and uncertainty that grows with the step.
Source: Chen et al. (2020), arXiv 2011.04803, section 4.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...optimizers import (
    LineModel,
    expected_decrease,
    improvement_threshold,
    log_expected_improvement,
    probability_of_improvement,
)
from ...optimizers._maximize import maximize_on_interval
from . import drawing
from .claims import Claim, Reproduction, Table, check, short
from .registry import Report, quiet

TRUST = 3.0  # Newton steps a/|h| at which the trust interval of the picture ends
PROBABILITY = 0.75  # of the threshold rule; 0.9 would not move on the most uncertain model
TOLERANCE = 2e-3  # of the maximizer, relative
UNCERTAIN = 0.3  # standard deviation of the curvature over its mean
REACHES = (1e1, 1e2, 1e3, 1e4, 1e5)  # ends of the interval that EI follows, in Newton steps
RULES = {
    "quadratic": expected_decrease,
    "PI": probability_of_improvement,
    "EI": log_expected_improvement,
    f"threshold {PROBABILITY:g}": improvement_threshold(PROBABILITY),
}
_COLORS = dict(zip(RULES, drawing.CYCLE, strict=False))
# (title, h, p, q, s) with a = 1; what is uncertain is the slope, the curvature and the values.
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
    scenes = [_steps(_scene(scene), TRUST) for scene in SCENES]
    _draw(out, scenes, quick)
    return Reproduction(
        settings={
            "trust_in_newton_steps": TRUST,
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
                f"chosen steps, in Newton steps a/|h|, trust interval ends at {TRUST:g}",
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
        up = LineModel(one, one, *noise)
        down = up._replace(curvature=-one)
        calm = up._replace(value_variance=1e-8 * one, curvature_variance=0 * one)

        def far(rule: str, model: LineModel, reach: float) -> jax.Array:
            return jax.vmap(lambda one: _maximize(rule, one, jnp.asarray(reach)))(model)

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
            "PI never steps beyond the Newton step a/h where the curvature is positive (part of "
            "random models)",
            share(chosen["PI"] <= 1 + TOLERANCE),
            at_least=1,
        ),
        check(
            "the step of PI goes to 0 with the noise of the loss values (mean step at s = 10⁻⁸, "
            "in Newton steps, at most 0.05)",
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
            f"without a trust interval EI is unbounded: in an interval of {REACHES[-1]:g} Newton "
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


def _certain(model: LineModel) -> LineModel:
    """The same model without uncertainty."""
    zero = jnp.zeros_like(model.slope)
    return LineModel(model.slope, model.curvature, zero, zero, zero)


def _scene(scene: tuple[str, float, float, float, float]) -> LineModel:
    _, h, p, q, s = scene
    return LineModel(*(jnp.asarray(x) for x in (1.0, h, p, q, s)))


def _maximize(rule: str, model: LineModel, reach: jax.Array) -> jax.Array:
    return maximize_on_interval(lambda step: RULES[rule](model, step), reach)


def _steps(model: LineModel, newton_steps: float) -> dict[str, float]:
    reach = newton_steps * model.slope / jnp.abs(model.curvature)
    return {name: float(_maximize(name, model, reach)) for name in RULES}


def _draw(out: Path, scenes: list[dict[str, float]], quick: bool) -> None:
    figure = drawing.figure("Steps chosen on a model of the loss along a line", quick, 11, 6.6)
    places = drawing.grid(figure, 2, len(SCENES))
    for axes, scene, steps in zip(places, SCENES, scenes, strict=True):
        model = _scene(scene)
        reach = TRUST / abs(scene[1])
        at = jnp.linspace(0, 1.15 * reach, 200)
        change, spread = np.asarray(model.change(at)), np.asarray(model.change_std(at))
        axes.plot(at, change, color=drawing.BLACK, lw=1.5)
        for width in (1, 2):
            axes.fill_between(
                at, change - width * spread, change + width * spread, color="0.5", alpha=0.16, lw=0
            )
        axes.axhline(0, color="0.6", lw=0.8)
        axes.axvline(reach, color="0.3", ls=":", lw=1.2, label="end of the trust interval")
        for place, (name, step) in enumerate(steps.items()):
            height = float(model.change(jnp.asarray(step)))
            size = 13 - 2 * place  # markers may lie on each other
            axes.plot(step, height, "osD^"[place], color=_COLORS[name], ms=size, label=name)
        low, high = change.min(), change.max()
        room = 0.6 * (high - low)
        axes.set(title=scene[0], xlabel="step α", ylabel="change of the loss Δ(α)")
        axes.set_ylim(low - room, high + room)
        axes.title.set_fontsize(10)
    drawing.legend_below(figure, places[0], len(RULES) + 1)
    drawing.save(figure, out, "acquisitions")
