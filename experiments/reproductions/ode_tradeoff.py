"""What an easy equation costs: loss against evaluations, over the weight of the penalty.

Regularized neural ODEs are trained on the digits with `adameka`, for second and third derivatives
and several weights of their penalty; an adaptive solver then evaluates the equation more or less
often. Weight 0 is the neural ODE that nothing was asked of.

Source: J. Kelly, J. Bettencourt, M. J. Johnson and D. Duvenaud, *Learning Differential Equations
that are Easy to Solve* (2020), arXiv:2007.04504, figure 1.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ...optimizers import adameka
from .. import plots
from ..problem import Source
from ..problems import ode_classifier
from .claims import Claims, Reproduction, check_ratio, table
from .trainings import train

FULL = {"weights": (0.0, 1e-3, 1e-2, 0.1, 1.0), "steps": 600}
QUICK = {"weights": (0.0, 1e-2, 1.0), "steps": 100}
ORDERS = (2, 3)  # of the derivative that is penalized
LOSS, ACCURACY, COST = "test_cross_entropy", "test_accuracy", "test_function_evaluations"
QUANTITIES = {LOSS: "cross-entropy", ACCURACY: "accuracy", COST: "evaluations"}
Found = dict[int, dict[float, dict[str, np.ndarray]]]  # by order and weight, of shape (seeds,)


def run(weights: Sequence[float], steps: int, *, seeds: int) -> Reproduction:
    """Train with every order and weight, and measure at the end."""
    found = {
        order: {weight: compute(order, weight, seeds=seeds, steps=steps) for weight in weights}
        for order in ORDERS
    }
    rows = {
        f"derivative {order}, weight {weight:g}": {
            heading: ends[name].mean() for name, heading in QUANTITIES.items()
        }
        for order, by_weight in found.items()
        for weight, ends in by_weight.items()
    }
    data = {f"derivative {order}": by_weight for order, by_weight in found.items()}
    tables = {"on test images, mean over the seeds": table("penalty", rows)}
    return Reproduction(draw(found), judge(found), data, tables)


def compute(order: int, weight: float, **budget: Any) -> dict[str, np.ndarray]:
    """What is measured after a training, by seed."""
    name = f"derivative {order}, weight {weight:g}"
    problem = ode_classifier.digits(name, Source(), order, weight)
    budget |= {"label": "adameka", "batch_size": problem.batch_size, "evaluations": 1}
    (curves,) = train(problem, lambda setting: adameka(), **budget)
    return {name: curves[name][:, -1] for name in QUANTITIES}


def judge(found: Found) -> Claims:
    """Whether a penalty makes the equation easier, and what a light one costs."""
    claims = {}
    for order, by_weight in found.items():
        none, light, heavy = (by_weight[weight] for weight in (0.0, 1e-2, 1.0))
        claims |= {
            f"derivative {order} penalized with a weight of 1: the solver needs at most 0.8 "
            "times the evaluations that it needs without": check_ratio(
                heavy[COST] / none[COST], at_most=0.8
            ),
            f"derivative {order} penalized with a weight of 0.01: the cross-entropy on test "
            "images is at most 1.1 times that without": check_ratio(
                light[LOSS] / none[LOSS], at_most=1.1
            ),
        }
    return claims


def draw(found: Found) -> Figure:
    """A curve for each order, from weight to weight: medians over the seeds, and all trainings."""
    title = "Regularized neural ODEs, with the weight of the penalty"
    figure, (axes,) = plots.panels(title, 1, 1, 6.4, 4.8)
    for order, by_weight in found.items():
        x, y = (np.array([ends[name] for ends in by_weight.values()]) for name in (COST, LOSS))
        middle = np.median(x, axis=1), np.median(y, axis=1)
        (line,) = axes.plot(*middle, marker="o", label=f"derivative {order} penalized")
        axes.scatter(x, y, s=8, color=line.get_color(), alpha=0.5)
        for weight, *point in zip(by_weight, *middle, strict=True):
            axes.annotate(f"{weight:g}", tuple(point), xytext=(4, 4), textcoords="offset points")
    axes.set(yscale="log", ylabel="cross-entropy on test images")
    axes.set_xlabel("evaluations by an adaptive solver, per test image")
    axes.legend(frameon=False)
    return figure
