"""Structures of the filter's covariance, and constants of its moving averages.

Source: Chen et al. (2020), arXiv 2011.04803, section 5, which found scalar variances most stable
and the constant unimportant between 0.9 and 0.999.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ...curvature import COVARIANCES
from ...optimizers import meka
from .. import plots
from ..problem import Problem
from .claims import Claims, Reproduction, check_ratio, table
from .trainings import Transformation, final_losses, load, published, train

FULL = {
    "problem": "mnist", "examples": None,
    "batch_size": 128, "steps": 2300, "evaluations": 4, "eval_examples": 5000,
}  # fmt: skip
QUICK = {
    "problem": "mnist|digits", "examples": 4000,
    "batch_size": 32, "steps": 120, "evaluations": 4, "eval_examples": 500,
}  # fmt: skip
DECAYS = (0.9, 0.99, 0.999)
RULES: dict[str, Callable[..., Transformation]] = {"published steps": published, "our steps": meka}
Losses = dict[str, dict[str, np.ndarray]]  # by rule and structure, of shape (decays, seeds)


def run(problem: str, examples: int | None, *, seeds: int, **budget: Any) -> Reproduction:
    """Train with every structure and every constant."""
    loaded = load(problem, examples, budget["eval_examples"])
    losses = {
        rule: {name: compute(loaded, rule, name, seeds=seeds, **budget) for name in COVARIANCES}
        for rule in RULES
    }
    header = [f"decay {decay:g}" for decay in DECAYS]
    rows = {
        f"{rule}, {structure}": dict(zip(header, values.mean(axis=1), strict=True))
        for rule, by_structure in losses.items()
        for structure, values in by_structure.items()
    }
    data = {"decay": DECAYS, "train loss": losses}
    tables = {"final train loss, mean over the seeds": table("filter", rows)}
    picture = draw(loaded.name, losses)
    return Reproduction(picture, judge(losses), data, tables, {"problem": loaded.name})


def compute(problem: Problem, rule: str, structure: str, **budget: Any) -> np.ndarray:
    """Final train losses of all constants, shape (decays, seeds)."""

    def build(setting: Any) -> Transformation:
        return RULES[rule](covariance=structure, decay=setting["decay"])

    settings = [{"decay": decay} for decay in DECAYS]
    return final_losses(train(problem, build, settings, label=f"{rule}, {structure}", **budget))


def judge(losses: Losses) -> Claims:
    """Compare the largest loss with the smallest, over constants and over structures."""
    claims = {}
    for rule, by_structure in losses.items():
        logs = np.log(np.stack(list(by_structure.values())))  # (structures, decays, seeds)
        claims |= {
            f"{rule}: insensitive to the constant of the moving averages: over 0.9, 0.99 and "
            "0.999 the largest train loss is at most 1.2 times the smallest (mean over the "
            "structures)": check_ratio(np.exp(np.ptp(logs, axis=1).mean(axis=0)), at_most=1.2),
            f"{rule}: scalar variances are as good as finer ones: at most 1.1 times the train "
            "loss of the better of the others (mean over the constants)": check_ratio(
                np.exp((logs[0] - logs[1:].min(axis=0)).mean(axis=0)), at_most=1.1
            ),
        }
    return claims


def draw(problem: str, losses: Losses) -> Figure:
    x = np.arange(len(DECAYS))
    shown = {
        rule: {structure: (x, values.T) for structure, values in by_structure.items()}
        for rule, by_structure in losses.items()
    }
    title = f"Structure of the covariance, {problem}"
    figure, places = plots.band_panels(title, shown, 2, 9, 4.2, marker="o", sharey=True)
    for axes in places:
        axes.set_xticks(x, [f"{decay:g}" for decay in DECAYS])
        axes.set_xlabel("constant of the moving averages")
    places[0].set_ylabel("final train loss")
    return figure
