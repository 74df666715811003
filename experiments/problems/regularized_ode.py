"""Neural ODE classifiers whose equation is made easy to solve: high derivatives cost.

J. Kelly, J. Bettencourt, M. J. Johnson and D. Duvenaud, *Learning Differential Equations that are
Easy to Solve* (2020), arXiv:2007.04504, equation 1 and section 3.
"""

from .. import datasets, ode
from .ode_classifier import fixed_steps, ode_classifier
from .problem import Problem, Source

WEIGHT = 0.01


def digits(
    name: str,
    source: Source,
    order: int = 2,
    weight: float = WEIGHT,
    integrate: ode.Integrate = fixed_steps,
) -> Problem:
    del source  # the data are built in
    return ode_classifier(
        name,
        datasets.digits(),
        width=64,
        batch_size=64,
        epochs=30,
        order=order,
        weight=weight,
        integrate=integrate,
    )


def third_order(name: str, source: Source) -> Problem:
    return digits(name, source, order=3)
