"""From fixed to adaptive steps at several times: does an early switch lead astray?

The publication found that adaptive steps from early on keep curvature and gradient variance high
and end with lower accuracy. All runs start from the same points; fixed steps are plain SGD, and
the filters run from the beginning.
Source: Chen et al. (2020), arXiv 2011.04803, section 6.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from ...curvature import quadratic_form
from ...optimizers import meka, metrics, warm_start
from .. import plots
from ..problem import Problem
from .claims import Claims, Reproduction, check, check_ratio, over_seeds, table
from .trainings import Curves, final, load, published, train

FULL = {
    "problem": "cifar10-resnet32", "examples": None,
    "batch_size": 128, "steps": 7800, "evaluations": 40, "eval_examples": 5000,
}  # fmt: skip
QUICK = {
    "problem": "cifar10-resnet-small|digits-cnn", "examples": 4000,
    "batch_size": 32, "steps": 160, "evaluations": 8, "eval_examples": 500,
}  # fmt: skip
RATE = 0.1
DECAY = 0.99  # of the filter's variances, its default
SWITCHES = {"at 0%": 0.0, "at 25%": 0.25, "at 50%": 0.5, "never": 1.0}  # parts of the training
EARLY, LATE = "at 0%", "at 50%"
PUBLISHED, OURS = "published rule", "our rule"
RULES = {PUBLISHED: published, OURS: meka}
MAGNITUDES = ("curvature", "gradient variance", "step size")
Found = dict[str, dict[str, Curves]]  # by rule and switch


def run(problem: str, examples: int | None, *, seeds: int, **budget: Any) -> Reproduction:
    """Train with both rules and every switch."""
    loaded = load(problem, examples, budget["eval_examples"])
    found = {rule: compute(loaded, rule, seeds=seeds, **budget) for rule in RULES}
    rows = {
        f"{rule}, {switch}": {name: v.mean() for name, v in averages(curves).items()}
        for rule, by_switch in found.items()
        for switch, curves in by_switch.items()
    }
    tables = {"over the last quarter, means over the seeds": table("switch", rows)}
    picture = draw(loaded.name, found)
    settings = {"problem": loaded.name}
    return Reproduction(picture, judge(found), over_seeds(found), tables, settings)


def compute(problem: Problem, rule: str, *, steps: int, **budget: Any) -> dict[str, Curves]:
    """Curves by switch."""
    curves = train(
        problem,
        lambda setting: warm_start(RATE, jnp.asarray(setting["until"], jnp.int32), RULES[rule]()),
        [{"until": float(round(part * steps))} for part in SWITCHES.values()],
        label=rule,
        metrics=curvature_variance_and_step_size,
        steps=steps,
        **budget,
    )
    return dict(zip(SWITCHES, curves, strict=True))


def curvature_variance_and_step_size(state: Any, params: Any, data: Any) -> dict[str, jax.Array]:
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


def judge(found: Found) -> Claims:
    """Compare the earliest switch with that in the middle, over the last quarter."""
    claims = {}
    for rule, by_switch in found.items():
        early, late = (averages(by_switch[switch]) for switch in (EARLY, LATE))
        claims |= {
            f"{rule}: adaptive from the start, the curvature stays higher than after a switch "
            "in the middle (more than 1.2 times)": check_ratio(
                early["curvature"] / late["curvature"], at_least=1.2
            ),
            f"{rule}: and so does the variance of the gradient (more than 1.2 times)": check_ratio(
                early["gradient variance"] / late["gradient variance"], at_least=1.2
            ),
            f"{rule}: and the test accuracy is lower (by more than 0.01)": check(
                early["test_accuracy"] - late["test_accuracy"], at_most=-0.01
            ),
        }
    ours, theirs = (averages(found[rule][EARLY]) for rule in (OURS, PUBLISHED))
    texts = {"curvature": "curvature", "gradient variance": "variance of the gradient"}
    for name, text in texts.items():
        statement = (
            f"an adaptive trust region removes the drift: adaptive from the start, the {text} "
            "under our rule is at most half of that under the published one"
        )
        claims[statement] = check_ratio(ours[name] / theirs[name], at_most=0.5)
    return claims | {
        "adaptive from the start, our rule ends with a higher test accuracy than the published": (
            check(ours["test_accuracy"] - theirs["test_accuracy"], at_least=0)
        )
    }


def averages(curves: Curves) -> dict[str, np.ndarray]:
    """Over the last quarter, by seed: mean measures, and geometric means of magnitudes."""
    logs = {name: np.log(np.maximum(np.abs(curves[name]), 1e-12)) for name in MAGNITUDES}
    return {
        **{name: final(curves[name]) for name in ("train_loss", "test_accuracy")},
        **{name: np.exp(final(values)) for name, values in logs.items()},
    }


def draw(problem: str, found: Found) -> Figure:
    names = (*MAGNITUDES, "test_accuracy")
    shown = {
        f"{rule}: {name.replace('_', ' ')}": {
            switch: (curves["step"], np.abs(curves[name])) for switch, curves in by_switch.items()
        }
        for rule, by_switch in found.items()
        for name in names
    }
    title = f"From fixed to adaptive steps, {problem}"
    figure, places = plots.band_panels(title, shown, len(names), 13, 6.2, sharey="col")
    for axes in places:
        for line, part in zip(axes.get_lines(), SWITCHES.values(), strict=True):
            if 0 < part < 1:
                at = part * np.max(line.get_xdata())
                axes.axvline(at, color=line.get_color(), lw=0.8, ls=":")
    for axes in places[3::4]:
        axes.set_yscale("linear")
    return figure
