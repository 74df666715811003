"""Structures of the filter's covariance, and constants of its moving averages.

Source: Chen et al. (2020), arXiv 2011.04803, section 5, which found scalar variances most stable
and the constant unimportant between 0.9 and 0.999.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...curvature import COVARIANCES
from ...optimizers import meka
from .. import plots
from ..problem import Problem
from .claims import Claim, Reproduction, check_ratio
from .trainings import Transformation, final, load, published, train

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
    return Reproduction(
        figure=draw(loaded.name, losses),
        claims=judge(losses),
        data={"decay": DECAYS, "train loss": losses},
        tables={"final train loss, mean over the seeds": table(losses)},
        settings={"problem": loaded.name},
    )


def compute(problem: Problem, rule: str, structure: str, **budget: Any) -> np.ndarray:
    """Final train losses of all constants, shape (decays, seeds)."""
    curves = train(
        problem,
        lambda setting: RULES[rule](covariance=structure, decay=setting["decay"]),
        [{"decay": decay} for decay in DECAYS],
        label=f"{rule}, {structure}",
        **budget,
    )
    return np.stack([final(values["train_loss"]) for values in curves])


def judge(losses: Losses) -> list[Claim]:
    """Compare the largest loss with the smallest, over constants and over structures."""
    claims = []
    for rule, by_structure in losses.items():
        logs = np.log(np.stack(list(by_structure.values())))  # (structures, decays, seeds)
        claims += [
            check_ratio(
                f"{rule}: insensitive to the constant of the moving averages: over 0.9, 0.99 and "
                "0.999 the largest train loss is at most 1.2 times the smallest (mean over the "
                "structures)",
                np.exp(np.ptp(logs, axis=1).mean(axis=0)),
                at_most=1.2,
            ),
            check_ratio(
                f"{rule}: scalar variances are as good as finer ones: at most 1.1 times the train "
                "loss of the better of the others (mean over the constants)",
                np.exp((logs[0] - logs[1:].min(axis=0)).mean(axis=0)),
                at_most=1.1,
            ),
        ]
    return claims


def table(losses: Losses) -> pd.DataFrame:
    rows = {
        f"{rule}, {structure}": values.mean(axis=1)
        for rule, by_structure in losses.items()
        for structure, values in by_structure.items()
    }
    header = [f"decay {decay:g}" for decay in DECAYS]
    return pd.DataFrame.from_dict(rows, orient="index", columns=header).rename_axis("filter")


def draw(problem: str, losses: Losses) -> Figure:
    title = f"Structure of the covariance, {problem}"
    figure, places = plots.panels(title, 1, len(losses), 9, 4.2, sharey=True)
    x = np.arange(len(DECAYS))
    for axes, (rule, by_structure) in zip(places, losses.items(), strict=True):
        for structure, values in by_structure.items():
            plots.band(axes, x, values.T, structure, marker="o")
        axes.set_xticks(x, [f"{decay:g}" for decay in DECAYS])
        axes.set(yscale="log", title=rule, xlabel="constant of the moving averages")
    places[0].set_ylabel("final train loss")
    plots.legend_below(figure, places[0], 3)
    return figure
