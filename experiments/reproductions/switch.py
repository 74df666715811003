"""From fixed to adaptive steps at several times: does an early switch lead astray?

The publication found that adaptive steps from early on keep curvature and gradient variance high
and end with lower accuracy. All runs start from the same points; fixed steps are plain SGD, and
the filters run from the beginning.
Source: Chen et al. (2020), arXiv 2011.04803, section 6.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...curvature import quadratic_form
from ...optimizers import meka, metrics, warm_start
from ..lanes import Budget, Method
from ..problems import Problem
from . import drawing
from .claims import Claim, Reproduction, Table, check, over_seeds
from .registry import Report, quiet
from .trainings import Trained, load, published, train

RATE = 0.1
DECAY = 0.99  # of the filter's variances, its default
SWITCHES = (0.0, 0.25, 0.5, 1.0)  # parts of the training, the last one never
EARLY, LATE = SWITCHES.index(0.0), SWITCHES.index(0.5)
PUBLISHED, OURS = "published rule", "our rule"
RULES = {PUBLISHED: published, OURS: meka}
DRIFT = 1.2
LOST = 0.01


class Size(NamedTuple):
    """How much to compute."""

    problem: str
    examples: int | None
    batch_size: int
    steps: int
    looks: int
    judged: int


FULL = Size("cifar10-resnet32", None, batch_size=128, steps=7800, looks=40, judged=5000)
QUICK = Size("cifar10-resnet-small", 4000, batch_size=32, steps=160, looks=8, judged=500)


def run(out: Path, quick: bool, seeds: int, report: Report = quiet) -> Reproduction:
    """Train with both rules and every switch."""
    size = QUICK if quick else FULL
    problem = load(size.problem, quick, size.examples, size.judged)
    found = compute(problem, size, seeds, report)
    _draw(out, problem.name, size, found, quick)
    return Reproduction(
        settings={
            **size._asdict(),
            "problem": problem.name,
            "step_size": RATE,
            "switches": SWITCHES,
            "seeds": seeds,
            "quick": quick,
        },
        data={
            "step": found[PUBLISHED].looks,
            **{
                rule: {
                    _label(part): {name: over_seeds(v[k]) for name, v in _curves(trained).items()}
                    for k, part in enumerate(SWITCHES)
                }
                for rule, trained in found.items()
            },
        },
        claims=judge(found),
        tables=[_table(found)],
    )


def compute(problem: Problem, size: Size, seeds: int, report: Report = quiet) -> dict[str, Trained]:
    """Trainings by rule; settings are the switches."""
    budget = Budget(size.steps, size.batch_size, size.looks, size.judged)
    settings = [{"until": float(round(part * size.steps))} for part in SWITCHES]

    def method(make: Any) -> Method:
        return Method(
            lambda setting, steps: warm_start(
                RATE, jnp.asarray(setting["until"], jnp.int32), make()
            ),
            gauges=gauges,
        )

    return {
        rule: train(problem, method(make), settings, seeds, budget, rule, report)
        for rule, make in RULES.items()
    }


def gauges(state: Any, params: Any, data: Any) -> dict[str, jax.Array]:
    """Curvature along the unit direction, variance of the batch's gradient, step size made."""
    del params, data
    known, filtered = metrics(state), state.inner.filter
    noise = optax.tree.bias_correction(filtered.noise, DECAY, filtered.count)
    ones = optax.tree.ones_like(filtered.belief.mean)
    return {
        "curvature": known["curvature"],
        "gradient variance": quadratic_form(noise, ones),
        "step size": jnp.where(known["phase"] > 0, known["step_size"], RATE),
    }


def judge(found: dict[str, Trained]) -> list[Claim]:
    """Compare the earliest switch with that in the middle, over the last quarter."""
    claims = []
    for rule, trained in found.items():
        curvature = _late(trained.gauges["curvature"])
        variance = _late(trained.gauges["gradient variance"])
        accuracy = trained.final("test_accuracy")
        lost = accuracy[EARLY] - accuracy[LATE]
        claims += [
            check(
                f"{rule}: adaptive from the start, the curvature stays higher than after a switch "
                f"in the middle (more than {DRIFT:g} times)",
                curvature[EARLY] / curvature[LATE],
                at_least=DRIFT,
                ratio=True,
            ),
            check(
                f"{rule}: and so does the variance of the gradient (more than {DRIFT:g} times)",
                variance[EARLY] / variance[LATE],
                at_least=DRIFT,
                ratio=True,
            ),
            check(
                f"{rule}: and the test accuracy is lower (by more than {LOST:g})",
                lost,
                at_most=-LOST,
            ),
        ]
    ours, theirs = found[OURS], found[PUBLISHED]
    claims += [
        check(
            f"an adaptive trust region removes the drift: adaptive from the start, the {words} "
            "under our rule is at most half of that under the published one",
            _late(ours.gauges[name])[EARLY] / _late(theirs.gauges[name])[EARLY],
            at_most=0.5,
            ratio=True,
        )
        for name, words in (
            ("curvature", "curvature"),
            ("gradient variance", "variance of the gradient"),
        )
    ]
    gained = ours.final("test_accuracy")[EARLY] - theirs.final("test_accuracy")[EARLY]
    claims.append(
        check(
            "adaptive from the start, our rule ends with a higher test accuracy than the published",
            gained,
            at_least=0,
        )
    )
    return claims


def _late(values: np.ndarray) -> np.ndarray:
    """Geometric mean over the last quarter of the looks, shape (settings, seeds)."""
    last = np.abs(values[..., -max(1, values.shape[-1] // 4) :])
    return np.exp(np.log(np.maximum(last, 1e-12)).mean(axis=-1))


def _curves(trained: Trained) -> dict[str, np.ndarray]:
    return {
        **trained.gauges,
        "train loss": trained.measures["train_loss"],
        "test accuracy": trained.measures["test_accuracy"],
    }


def _label(part: float) -> str:
    return "never" if part == 1 else f"at {part:.0%}"


def _table(found: dict[str, Trained]) -> Table:
    rows = [
        (
            f"{rule}, {_label(part)}",
            f"{trained.final()[k].mean():.3g}",
            f"{trained.final('test_accuracy')[k].mean():.1%}",
            f"{_late(trained.gauges['curvature'])[k].mean():.3g}",
            f"{_late(trained.gauges['gradient variance'])[k].mean():.3g}",
            f"{_late(trained.gauges['step size'])[k].mean():.3g}",
        )
        for rule, trained in found.items()
        for k, part in enumerate(SWITCHES)
    ]
    header = ("switch", "train loss", "test accuracy", "curvature", "variance", "step size")
    return Table("over the last quarter, means over the seeds", header, rows)


def _draw(out: Path, problem: str, size: Size, found: dict[str, Trained], quick: bool) -> None:
    figure = drawing.figure(f"From fixed to adaptive steps, {problem}", quick, 13, 6.2)
    places = np.reshape(np.array(drawing.grid(figure, 4, 8), object), (2, 4))
    names = ("curvature", "gradient variance", "step size", "test accuracy")
    for row, (rule, trained) in zip(places, found.items(), strict=True):
        curves = _curves(trained)
        for axes, name in zip(row, names, strict=True):
            for k, (part, color) in enumerate(zip(SWITCHES, drawing.CYCLE, strict=False)):
                values = curves[name][k]
                shown = values if name == "test accuracy" else np.abs(values)
                drawing.band(axes, trained.looks, shown, color, _label(part))
                if 0 < part < 1:
                    axes.axvline(part * size.steps, color=color, lw=0.8, ls=":")
            axes.set(title=f"{rule}: {name}", xlabel="step")
            axes.set_yscale("linear" if name == "test accuracy" else "log")
            axes.title.set_fontsize(9)
    for left, right in zip(*places, strict=True):
        ends = (*left.get_ylim(), *right.get_ylim())
        left.set_ylim(min(ends), max(ends))
        right.set_ylim(min(ends), max(ends))
    drawing.legend_below(figure, places[0, 0], len(SWITCHES))
    drawing.save(figure, out, "switch")
