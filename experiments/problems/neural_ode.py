"""Neural ODE classifiers: the layers of a residual network become a differential equation.

R. T. Q. Chen, Y. Rubanova, J. Bettencourt and D. Duvenaud, *Neural Ordinary Differential
Equations* (2018), arXiv:1806.07366, section 3.
"""

from .. import datasets, ode
from .ode_classifier import fixed_steps, ode_classifier
from .problem import Problem, Source


def digits(name: str, source: Source, integrate: ode.Integrate = fixed_steps) -> Problem:
    del source  # the data are built in
    return ode_classifier(
        name, datasets.digits(), width=64, batch_size=64, epochs=30, integrate=integrate
    )


def mnist(name: str, source: Source) -> Problem:
    dataset = datasets.prepared("mnist", source.data_dir, source.report)
    return ode_classifier(name, dataset, width=100, batch_size=128, epochs=5)
