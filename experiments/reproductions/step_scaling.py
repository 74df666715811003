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
from matplotlib.figure import Figure
from scipy.stats import gmean

from .. import plots
from ..variants.replayed import replayed
from .claims import Claims, Reproduction, check_ratio, table
from .trainings import Transformation, final_losses, load, published, train

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
    eval_examples: int,
    **budget: Any,
) -> Reproduction:
    """Train with multiples of the steps of four rules."""
    settings = [{"multiple": c} for c in multiples]
    header = [f"× {c:g}" for c in multiples]
    losses, claims, tables = {}, {}, {}
    for names, examples, batch_size, steps in problems:
        problem = load(names, examples, eval_examples)
        budget |= {"batch_size": batch_size, "steps": steps, "eval_examples": eval_examples}
        by_rule = {
            rule: final_losses(train(problem, build, settings, label=rule, **budget))
            for rule, build in RULES.items()
        }
        losses[problem.name] = by_rule
        claims |= judge(problem.name, multiples, by_rule)
        title = "final train loss, mean over the seeds, by multiple of the chosen step"
        rows = {
            rule: dict(zip(header, values.mean(axis=1), strict=True))
            for rule, values in by_rule.items()
        }
        tables[f"{problem.name}: {title}"] = table("rule", rows)
    data = {"multiple": multiples, "train loss": losses}
    return Reproduction(draw(multiples, losses), claims, data, tables)


def judge(problem: str, multiples: Sequence[float], losses: Losses) -> Claims:
    """Where the best multiple of every seed lies."""
    best = {rule: np.asarray(multiples)[values.argmin(axis=0)] for rule, values in losses.items()}
    lowest = gmean(losses[OURS], axis=1).min()
    as_it_is = losses[OURS][list(multiples).index(1.0)]
    no_other = {
        f"{problem}: {rule} needs no other length than it chooses: the best multiple lies "
        "between 0.5 and 2": check_ratio(best[rule], at_least=0.5, at_most=2)
        for rule in (PI, OURS)
    }
    return {
        **no_other,
        f"{problem}: the quadratic rule steps too far: its best multiple is at most 0.1": (
            check_ratio(best[QUADRATIC], at_most=0.1 * (1 + 1e-6))
        ),
        f"{problem}: ours as it is ends within 10 % of its best multiple": (
            check_ratio(as_it_is / lowest, at_most=1.1)
        ),
    }


def draw(multiples: Sequence[float], losses: dict[str, Losses]) -> Figure:
    shown, limits = {}, []
    for problem, by_rule in losses.items():
        everything = np.stack(list(by_rule.values()))
        lowest = everything.min()
        highest = min(WORST * lowest, everything[np.isfinite(everything)].max())
        limits.append((0.9 * lowest, 1.1 * highest))
        shown[problem] = {
            rule: (multiples, np.minimum(values, 2 * highest).T) for rule, values in by_rule.items()
        }
    title = "Multiples of the chosen steps"
    figure, places = plots.band_panels(title, shown, len(shown), 10, 4.6, marker="o")
    for axes, ends in zip(places, limits, strict=True):
        axes.axvline(1, color="0.4", lw=0.8, ls=":")
        axes.set(xscale="log", xlabel="multiple c of the chosen step", ylim=ends)
    places[0].set_ylabel("final train loss")
    return figure
