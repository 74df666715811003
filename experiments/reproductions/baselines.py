"""Tuned SGD, momentum and Adam against the published rule and ours.

The best rate of a baseline is that of the lowest final train loss on the very seeds that are
reported, which is in its favor.
Source: Chen et al. (2020), arXiv 2011.04803, section 6.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from ...optimizers import adameka
from .. import plots
from ..problem import Problem
from ..results import bootstrap
from .claims import Claims, Reproduction, check, check_ratio, over_seeds, table
from .trainings import Curves, Makers, final, load, published, train

FULL = {  # problem, training examples, batch size, steps
    "problems": (
        ("mnist", None, 128, 4680), ("cifar10", None, 128, 7800),
        ("cifar10-resnet32", None, 128, 15600),
    ),
    "rates": {
        "SGD": (0.01, 0.03, 0.1, 0.3, 1.0), "momentum": (0.003, 0.01, 0.03, 0.1, 0.3),
        "Adam": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    },
    "evaluations": 20, "eval_examples": 5000,
}  # fmt: skip
QUICK = {
    "problems": (
        ("mnist|digits", 4000, 32, 200), ("cifar10-small|digits-cnn", 4000, 32, 120),
        ("cifar10-resnet-small|digits-cnn", 4000, 32, 120),
    ),
    "rates": {
        "SGD": (0.03, 0.1, 0.3), "momentum": (0.01, 0.03, 0.1), "Adam": (1e-3, 3e-3, 1e-2),
    },
    "evaluations": 8, "eval_examples": 500,
}  # fmt: skip
KINDS: Makers = {
    "SGD": optax.identity,
    "momentum": lambda: optax.trace(decay=0.9),
    "Adam": optax.scale_by_adam,
}
CLASSES = 10  # of every problem here
PUBLISHED, OURS = "published rule", "adameka"
RULES: Makers = {PUBLISHED: published, OURS: adameka}
Found = dict[str, Curves]  # by optimizer; those of a baseline have its `rate`


def run(
    problems: Sequence[tuple[str, int | None, int, int]],
    rates: Mapping[str, Sequence[float]],
    *,
    eval_examples: int,
    **budget: Any,
) -> Reproduction:
    """Sweep the baselines, train both rules, and compare where they end."""
    found: dict[str, Found] = {}
    claims, tables = {}, {}
    for names, examples, batch_size, steps in problems:
        problem = load(names, examples, eval_examples)
        budget |= {"batch_size": batch_size, "steps": steps, "eval_examples": eval_examples}
        wanted = names.partition("|")[0]
        label = problem.name if problem.name == wanted else f"{problem.name} for {wanted}"
        found[label] = compute(problem, rates, **budget)
        claims |= judge(label, found[label])
        rows = {
            name: {
                "best rate": f"{curves['rate']:g}" if name in KINDS else "–",
                "train loss": cell(curves["train_loss"], ".3g"),
                "test accuracy": cell(curves["test_accuracy"], ".1%"),
            }
            for name, curves in found[label].items()
        }
        title = f"{label}: mean over the seeds [95 % interval], last quarter"
        tables[title] = table("optimizer", rows)
    return Reproduction(draw(found), claims, over_seeds(found), tables)


def compute(problem: Problem, rates: Mapping[str, Sequence[float]], **budget: Any) -> Found:
    """Curves of the baselines at their best rates, and of the rules."""
    settings = [
        {"kind": float(kind), "rate": rate}
        for kind, name in enumerate(KINDS)
        for rate in rates[name]
    ]
    swept = iter(train(problem, baseline, settings, label="baselines", **budget))
    found = {}
    for name in KINDS:
        candidates = [next(swept) | {"rate": np.asarray(rate)} for rate in rates[name]]
        found[name] = min(candidates, key=lambda curves: final(curves["train_loss"]).mean())
    for name, make in RULES.items():
        found[name] = train(problem, lambda setting, make=make: make(), label=name, **budget)[0]
    return found


def baseline(setting: Mapping[str, Any]) -> optax.GradientTransformationExtraArgs:
    """SGD, momentum or Adam with a constant rate: one program for all, as which is traced."""
    kinds = [make() for make in KINDS.values()]

    def init_fn(params: Any) -> Any:
        return tuple(kind.init(params) for kind in kinds)

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        both = [kind.update(updates, s, params) for kind, s in zip(kinds, state, strict=True)]
        directions, states = zip(*both, strict=True)
        chosen = jax.tree.map(
            lambda *leaves: -setting["rate"] * jnp.stack(leaves)[jnp.int32(setting["kind"])],
            *directions,
        )
        return chosen, states

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def judge(problem: str, found: Found) -> Claims:
    """Compare both rules with the best of the tuned baselines."""
    losses = {name: final(curves["train_loss"]) for name, curves in found.items()}
    accuracies = {name: final(curves["test_accuracy"]) for name, curves in found.items()}
    tuned = [name for name in found if name in KINDS]
    lowest = min((losses[name] for name in tuned), key=np.mean)
    chance = np.log(CLASSES)  # the loss of a network that has learned nothing
    highest = max((accuracies[name] for name in tuned), key=np.mean)
    claims = {}
    for name in RULES:
        claims |= {
            f"{problem}: {name} matches the best tuned baseline in train loss (at most 1.1 "
            "times; the baseline at most 1.1 times as far below chance)": check_ratio(
                np.maximum(losses[name] / lowest, behind(chance - losses[name], chance - lowest)),
                at_most=1.1,
            ),
            f"{problem}: {name} matches the best tuned baseline in test accuracy (at most "
            "0.01 less)": check(accuracies[name] - highest, at_least=-0.01),
        }
    return claims


def behind(gain: np.ndarray, best: np.ndarray) -> np.ndarray:
    """How many times the best gain a gain falls short of; a hundred times without any."""
    return best / np.maximum(gain, best / 100)


def cell(values: np.ndarray, form: str) -> str:
    ends = final(values)
    if not np.isfinite(ends).all():
        return "diverged"
    return "{:{form}} [{:{form}}, {:{form}}]".format(*bootstrap(ends), form=form)


def draw(found: dict[str, Found]) -> Figure:
    measures = {"train loss": ("train_loss", 1), "test accuracy (%)": ("test_accuracy", 100)}
    shown = {
        f"{problem}: {title}": {
            label: (curves["step"], factor * curves[name]) for label, curves in by_name.items()
        }
        for title, (name, factor) in measures.items()
        for problem, by_name in found.items()
    }
    title = "Tuned baselines, the published rule and ours"
    figure, places = plots.band_panels(title, shown, len(found), 12, 6.6)
    for axes in places[len(found) :]:
        axes.set_yscale("linear")
    return figure
