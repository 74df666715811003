"""Ours, untuned, against the tuned baselines that DeepOBS publishes.

DeepOBS tunes SGD, momentum and Adam over 36 rates each, by the test loss at the end, and repeats
the best of them with 10 seeds. Adam at its published rate is trained here as well: whether it comes
to the published loss shows whether the problem is theirs.
Source: F. Schneider, L. Balles and P. Hennig (2019), arXiv:1903.05499; the results are in
fsschneider/DeepOBS_Baselines.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from .. import plots
from ..errors import UsageError
from ..problem import Problem
from ..records import AVERAGE, LAST, Records, Run
from ..registry import OPTIMIZERS, Optimizer, Setting
from .claims import Claims, Reproduction, check_ratio, over_seeds, table
from .trainings import Curves, load, records

FULL = {  # problem, training examples, passes over them, seeds at most
    "problems": (("quadratic-deep", None, 100, 10), ("mnist-vae|digits-vae", None, 1, 1)),
    "eval_examples": 5000,
}  # fmt: skip
QUICK = {
    "problems": (("quadratic-deep", None, 100, 3), ("mnist-vae|digits-vae", 256, 1, 1)),
    "eval_examples": 5000,
}  # fmt: skip
RATES = {"quadratic-deep": 0.039810717055, "mnist-vae": 1.5848931925e-4}  # of the tuned Adam
# Train and test loss after so many passes. Those of the tuned optimizers are means over 10 seeds;
# "Adam, any rate" is the lowest train loss after that many among its 36 rates, of one seed each.
PUBLISHED = {
    "quadratic-deep": {
        100: {
            "SGD": (85.103, 87.397), "momentum": (84.956, 87.045), "Adam": (84.826, 87.112),
        },
    },
    "mnist-vae": {
        1: {
            "SGD": (53.353, 53.168), "momentum": (53.335, 53.143), "Adam": (37.994, 37.652),
            "Adam, any rate": (32.880, 32.535),
        },
        2: {
            "SGD": (53.277, 53.094), "momentum": (53.147, 52.956), "Adam": (34.002, 33.731),
            "Adam, any rate": (30.976, 30.835),
        },
        5: {
            "SGD": (52.539, 52.339), "momentum": (53.130, 52.943), "Adam": (31.101, 30.912),
            "Adam, any rate": (29.383, 29.394),
        },
        50: {
            "SGD": (38.521, 38.456), "momentum": (53.110, 52.927), "Adam": (27.087, 27.831),
            "Adam, any rate": (26.945, 27.903),
        },
    },
}  # fmt: skip
# Up to which the same problem may differ, as a share: by seeds, and by the examples measured on.
TOLERANCE = {"quadratic-deep": 0.005, "mnist-vae": 0.05}
ADAM, OURS, AVERAGED = "Adam, here", "ours, last", "ours, average"
Found = dict[str, Curves]


def run(
    problems: Sequence[tuple[str, int | None, int, int]], *, seeds: int, eval_examples: int
) -> Reproduction:
    """Train tuned Adam and ours, beside what is published."""
    for names, examples, epochs, _ in problems:
        known = PUBLISHED[names.partition("|")[0]]
        if examples is None and epochs not in known:
            raise UsageError(
                f"expected a number of epochs of {names} for which figures are published "
                f"({', '.join(map(str, known))}), got {epochs}."
            )
    found, claims, tables = {}, {}, {}
    for names, examples, epochs, most in problems:
        problem = load(names, examples, examples)
        budget = {"seeds": min(seeds, most), "epochs": epochs, "eval_examples": eval_examples}
        curves = compute(problem, RATES[names.partition("|")[0]], **budget)
        # Of fewer examples, or of other data, nothing is published.
        known = PUBLISHED.get(problem.name, {}).get(epochs, {}) if examples is None else {}
        found[problem.name] = curves
        claims |= judge(problem.name, curves, known, floor(problem))
        title = f"{problem.name}: loss at epoch {epochs}, seeds here: {budget['seeds']}"
        tables[title] = table("optimizer", rows(curves, known, floor(problem)))
    return Reproduction(draw(found), claims, over_seeds(found), tables)


def compute(problem: Problem, rate: float, *, seeds: int, epochs: int, eval_examples: int) -> Found:
    """Curves of Adam at the rate and of ours."""

    def trained(optimizer: Optimizer, setting: Setting) -> Records:
        return records(
            problem,
            optimizer,
            [Run(setting, seed) for seed in range(seeds)],
            label=optimizer.name,
            steps=epochs * (problem.examples // problem.batch_size),
            batch_size=problem.batch_size,
            evaluations=problem.evaluations,
            eval_examples=eval_examples,
        )

    def curves(found: Records, iterate: str) -> Curves:
        losses = {name: found.array(name, iterate)[0] for name in ("train_loss", "test_loss")}
        return {"step": found.array("step")[0, 0], **losses}

    adam = replace(OPTIMIZERS["adam"], averaged=False)
    theirs = trained(adam, {"learning_rate": rate, "schedule": 0})
    ours = trained(OPTIMIZERS["adameka"], {})
    return {
        ADAM: curves(theirs, LAST),
        OURS: curves(ours, LAST),
        AVERAGED: curves(ours, AVERAGE),
    }


def floor(problem: Problem) -> float:
    """The lowest train loss there is, where that is known: of a quadratic, at the mean example."""
    if problem.name != "quadratic-deep":
        return 0.0
    losses = problem.losses(jnp.mean(problem.data["x"], axis=0), problem.data, jax.random.key(0))
    return float(jnp.mean(losses))


Published = Mapping[str, tuple[float, float]]  # train and test loss


def judge(problem: str, found: Found, known: Published, floor: float) -> Claims:
    """Is the problem theirs, and does ours keep up with what is tuned?"""
    train, test = (
        {name: curves[loss][:, -1] for name, curves in found.items()}
        for loss in ("train_loss", "test_loss")
    )
    claims = {}
    if known:
        tolerance = TOLERANCE[problem]
        for part, losses, published in zip(
            ("train", "test"), (train, test), known["Adam"], strict=True
        ):
            claims[
                f"{problem}: Adam at the published rate comes to the published {part} loss (within "
                f"{tolerance:.1%})"
            ] = check_ratio(losses[ADAM] / published, at_least=1 - tolerance, at_most=1 + tolerance)
    above = ", above the lowest there is" if floor else ""
    claims[f"{problem}: ours, averaged, ends with at most the train loss of tuned Adam{above}"] = (
        check_ratio((train[AVERAGED] - floor) / (train[ADAM] - floor), at_most=1)
    )
    if known:
        lowest = min(losses[1] for losses in known.values())
        claims[f"{problem}: and with at most the lowest published test loss of a baseline"] = (
            check_ratio(test[AVERAGED] / lowest, at_most=1)
        )
    return claims


def rows(found: Found, known: Published, floor: float) -> dict[str, dict[str, Any]]:
    """Published and measured losses; the excess only of what was trained on these examples."""
    cells = {
        f"{name}, published": {"train loss": f"{train:.2f}", "test loss": f"{test:.2f}"}
        for name, (train, test) in known.items()
    }
    for name, curves in found.items():
        ends = (curves["train_loss"][:, -1].mean(), curves["test_loss"][:, -1].mean())
        cells[name] = {"train loss": f"{ends[0]:.2f}", "test loss": f"{ends[1]:.2f}"}
    if floor:
        for name, row in cells.items():
            row["train loss above the lowest"] = (
                found[name]["train_loss"][:, -1].mean() - floor if name in found else "–"
            )
    return cells


def draw(found: Mapping[str, Found]) -> Figure:
    shown = {
        f"{problem}: {loss.replace('_', ' ')}": {
            name: (values["step"], values[loss]) for name, values in curves.items()
        }
        for problem, curves in found.items()
        for loss in ("train_loss", "test_loss")
    }
    title = "Ours, untuned, and tuned Adam on problems of DeepOBS"
    return plots.band_panels(title, shown, 2, 10, 3.6 * len(found))[0]
