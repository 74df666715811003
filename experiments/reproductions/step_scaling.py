"""Steps of another length than the chosen ones: is the chosen length the best of its multiples?

Every step is multiplied by c. The rules of the publication do not notice. Ours closes a loop on
what its steps lead to and would undo any factor, so the factor is applied to the step sizes of a
twin, which trains undisturbed on the same batches: what is asked is whether the whole sequence of
step sizes is too long or too short.
Source: Chen et al. (2020), arXiv 2011.04803, section 6.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optax
import pandas as pd
from matplotlib.figure import Figure

from .. import plots
from ..problem import Problem
from ..variants.replayed import replayed
from .claims import Claim, Reproduction, check_ratio
from .trainings import Transformation, final, load, published, train

FULL = {  # problem, training examples, batch size, steps
    "problems": (("mnist", None, 128, 2300), ("cifar10", None, 128, 1900)),
    "multiples": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    "evaluations": 4, "eval_examples": 5000,
}  # fmt: skip
QUICK = {
    "problems": (("mnist|digits", 4000, 32, 160), ("cifar10-small|digits-cnn", 4000, 32, 120)),
    "multiples": (0.03, 0.1, 0.3, 1.0, 3.0),
    "evaluations": 4, "eval_examples": 500,
}  # fmt: skip
PI, QUADRATIC, OURS = "PI", "quadratic", "ours"
WORST = 4.0  # times the best loss, at which the picture ends


def scaled(acquisition: str) -> Callable[[Any], Transformation]:
    return lambda setting: optax.chain(published(acquisition), optax.scale(setting["multiple"]))


RULES: dict[str, Callable[[Any], Transformation]] = {
    PI: scaled("probability_of_improvement"),
    "EI": scaled("expected_improvement"),
    QUADRATIC: scaled("expected_decrease"),
    OURS: lambda setting: replayed(setting["multiple"]),
}
Losses = dict[str, np.ndarray]  # by rule, of shape (multiples, seeds)


def run(
    problems: Sequence[tuple[str, int | None, int, int]],
    multiples: Sequence[float],
    *,
    seeds: int,
    **budget: Any,
) -> Reproduction:
    """Train with multiples of the steps of four rules."""
    losses: dict[str, Losses] = {}
    for name, examples, batch_size, steps in problems:
        problem = load(name, examples, budget["eval_examples"])
        losses[problem.name] = compute(
            problem, multiples, seeds=seeds, batch_size=batch_size, steps=steps, **budget
        )
    title = "final train loss, mean over the seeds, by multiple of the chosen step"
    return Reproduction(
        figure=draw(multiples, losses),
        claims=[c for name, by_rule in losses.items() for c in judge(name, multiples, by_rule)],
        data={"multiple": multiples, "train loss": losses},
        tables={f"{name}: {title}": table(multiples, by_rule) for name, by_rule in losses.items()},
    )


def compute(problem: Problem, multiples: Sequence[float], **budget: Any) -> Losses:
    """Final train losses."""
    settings = [{"multiple": c} for c in multiples]
    losses = {}
    for rule, build in RULES.items():
        curves = train(problem, build, settings, label=rule, **budget)
        losses[rule] = np.stack([final(values["train_loss"]) for values in curves])
    return losses


def judge(problem: str, multiples: Sequence[float], losses: Losses) -> list[Claim]:
    """Where the best multiple of every seed lies."""
    best = {rule: np.asarray(multiples)[values.argmin(axis=0)] for rule, values in losses.items()}
    lowest = np.exp(np.log(losses[OURS]).mean(axis=1).min())

    def needs_no_other(rule: str) -> Claim:
        return check_ratio(
            f"{problem}: {rule} needs no other length than it chooses: the best multiple lies "
            "between 0.5 and 2",
            best[rule],
            at_least=0.5,
            at_most=2,
        )

    return [
        needs_no_other(PI),
        check_ratio(
            f"{problem}: the quadratic rule steps too far: its best multiple is at most 0.1",
            best[QUADRATIC],
            at_most=0.1 * (1 + 1e-6),
        ),
        needs_no_other(OURS),
        check_ratio(
            f"{problem}: ours as it is ends within 10 % of its best multiple",
            losses[OURS][list(multiples).index(1.0)] / lowest,
            at_most=1.1,
        ),
    ]


def table(multiples: Sequence[float], losses: Losses) -> pd.DataFrame:
    rows = {rule: values.mean(axis=1) for rule, values in losses.items()}
    header = [f"× {c:g}" for c in multiples]
    return pd.DataFrame.from_dict(rows, orient="index", columns=header).rename_axis("rule")


def draw(multiples: Sequence[float], losses: dict[str, Losses]) -> Figure:
    figure, places = plots.panels("Multiples of the chosen steps", 1, len(losses), 10, 4.6)
    for axes, (problem, by_rule) in zip(places, losses.items(), strict=True):
        everything = np.concatenate([values.ravel() for values in by_rule.values()])
        lowest = float(everything.min())
        highest = min(WORST * lowest, float(everything[np.isfinite(everything)].max()))
        for rule, values in by_rule.items():
            shown = np.minimum(values, 2 * highest).T
            plots.band(axes, np.asarray(multiples), shown, rule, marker="o")
        axes.axvline(1, color="0.4", lw=0.8, ls=":")
        axes.set(xscale="log", yscale="log", title=problem, xlabel="multiple c of the chosen step")
        axes.set_ylim(0.9 * lowest, 1.1 * highest)
    places[0].set_ylabel("final train loss")
    plots.legend_below(figure, places[0], len(RULES))
    return figure
