"""The names of the problems: adding one is adding a file and a line here."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from .. import prepared_data
from ..errors import unknown_name
from .problem import Problem, Source


@dataclass(frozen=True)
class Entry:
    """What is known about a problem before anything heavy is imported.

    Attributes:
      description: one line.
      module: file in this folder that builds the problem.
      factory: function in that file, `(name, source) -> Problem`.
      examples: number of training examples, or None if `dataset` says.
      dataset: name of the prepared dataset it reads, or None if it needs none.
    """

    description: str
    module: str
    factory: str
    examples: int | None = None
    dataset: str | None = None

    def training_examples(self, data_dir: Path | None) -> int:
        """Number of training examples, after checking that the data are there.

        Raises:
          UsageError: if the prepared dataset is missing or damaged.
        """
        if self.dataset is not None:
            return prepared_data.find(self.dataset, data_dir).examples["train"]
        assert self.examples is not None
        return self.examples


PROBLEMS = {
    "quadratic": Entry(
        "20-dimensional noisy quadratic of condition 1,000", "quadratic", "noisy", examples=4096
    ),
    "digits": Entry(
        "8×8 handwritten digits (built in), MLP 64-64-64-10", "digits", "mlp", examples=1438
    ),
    "digits-logistic": Entry(
        "8×8 handwritten digits, logistic regression (convex)", "digits", "logistic", examples=1438
    ),
    "digits-cnn": Entry(
        "8×8 handwritten digits, small GroupNorm CNN", "digits", "cnn", examples=1438
    ),
    "mnist": Entry("28×28 handwritten digits, MLP 784-128-128-10", "mnist", "mlp", dataset="mnist"),
    "mnist-logistic": Entry(
        "28×28 handwritten digits, logistic regression (convex)",
        "mnist",
        "logistic",
        dataset="mnist",
    ),
    "mnist-noisy": Entry(
        "28×28 handwritten digits, 20 % of the labels random, MLP",
        "mnist",
        "noisy_mlp",
        dataset="mnist",
    ),
    "mnist-logistic-noisy": Entry(
        "28×28 handwritten digits, 20 % of the labels random, logistic regression",
        "mnist",
        "noisy_logistic",
        dataset="mnist",
    ),
    "mnist-autoencoder": Entry(
        "28×28 handwritten digits, tanh autoencoder 784-64-16-64-784",
        "mnist",
        "autoencoder",
        dataset="mnist",
    ),
    "mnist-cnn": Entry(
        "28×28 handwritten digits, small GroupNorm CNN", "mnist", "cnn", dataset="mnist"
    ),
    "cifar10": Entry(
        "32×32 color photographs, small GroupNorm CNN", "cifar10", "cnn", dataset="cifar10"
    ),
    "cifar10-small": Entry(
        "32×32 color photographs, GroupNorm CNN of 6,500 parameters",
        "cifar10",
        "small_cnn",
        dataset="cifar10",
    ),
    "cifar10-mlp": Entry(
        "32×32 color photographs, MLP 3072-128-128-10", "cifar10", "mlp", dataset="cifar10"
    ),
    "cifar10-logistic": Entry(
        "32×32 color photographs, logistic regression (convex)",
        "cifar10",
        "logistic",
        dataset="cifar10",
    ),
    "text": Entry(
        "next character of Python's documentation (built in), transformer",
        "text",
        "transformer",
        examples=8_000,
    ),
    "neural-ode": Entry(
        "8×8 handwritten digits, neural ODE in 64 dimensions", "neural_ode", "digits", examples=1438
    ),
    "neural-ode-mnist": Entry(
        "28×28 handwritten digits, neural ODE in 784 dimensions",
        "neural_ode",
        "mnist",
        dataset="mnist",
    ),
    "regularized-ode": Entry(
        "8×8 handwritten digits, neural ODE with second derivatives penalized",
        "regularized_ode",
        "digits",
        examples=1438,
    ),
    "regularized-ode-3": Entry(
        "8×8 handwritten digits, neural ODE with third derivatives penalized",
        "regularized_ode",
        "third_order",
        examples=1438,
    ),
    "residual-flow": Entry(
        "8 Gaussians in the plane, residual flow, log-determinant of random truncation",
        "residual_flow",
        "eight_gaussians",
        examples=20_000,
    ),
    "residual-flow-exact": Entry(
        "8 Gaussians in the plane, residual flow, exact log-determinant",
        "residual_flow",
        "exact",
        examples=20_000,
    ),
    "residual-flow-large": Entry(
        "checkerboard in the plane, residual flow of 50 blocks, for a GPU",
        "residual_flow",
        "checkerboard",
        examples=20_000,
    ),
    "coupling-flow": Entry(
        "8 Gaussians in the plane, coupling flow (RealNVP)",
        "coupling_flow",
        "eight_gaussians",
        examples=20_000,
    ),
    "coupling-flow-large": Entry(
        "checkerboard in the plane, coupling flow of 16 layers, for a GPU",
        "coupling_flow",
        "checkerboard",
        examples=20_000,
    ),
    "latent-ode": Entry(
        "damped oscillations at irregular times, values missing, latent ODE",
        "latent_ode",
        "quick",
        examples=2_000,
    ),
    "latent-gru": Entry(
        "damped oscillations at irregular times, values missing, latent recurrent network",
        "latent_ode",
        "recurrent",
        examples=2_000,
    ),
    "latent-ode-large": Entry(
        "damped oscillations at up to 100 irregular times, latent ODE, for a GPU",
        "latent_ode",
        "large",
        examples=20_000,
    ),
    "latent-sde": Entry(
        "noisy views of a diffusion in a double well, latent SDE",
        "latent_sde",
        "double_well",
        examples=2_000,
    ),
    "latent-sde-lorenz": Entry(
        "noisy views of a stochastic Lorenz attractor, latent SDE, for a GPU",
        "latent_sde",
        "lorenz",
        examples=4_000,
    ),
}


def find(name: str) -> Entry:
    """Look up a problem, without loading it.

    Raises:
      UsageError: if there is none of that name.
    """
    if name not in PROBLEMS:
        raise unknown_name("a problem", name, PROBLEMS)
    return PROBLEMS[name]


def load(name: str, source: Source | None = None) -> Problem:
    """Build the problem: read its data, make its functions."""
    entry = find(name)
    module = importlib.import_module(f".{entry.module}", __package__)
    return getattr(module, entry.factory)(name, source or Source())
