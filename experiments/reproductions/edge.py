"""Multiples of the Newton step along the gradient: the edge of stability, and noise.

    α = c ‖g‖² / |h|,    h = g·Bg

measured on every batch. At c = 2 the model of the line says that nothing is gained or lost: the
edge. In full batch such steps keep the sharpness λ_max near 2/α; with noise they do worse than
shorter ones. Ours closes a loop on the slope after the step, along the same plain gradient.
Source: Roulet et al. (2024), arXiv 2407.06183; Cohen et al. (2021), arXiv 2103.00065.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from scipy.stats import gmean

from ...curvature import hvp, observe
from ...optimizers import metrics, scale_by_expected_improvement
from .. import plots
from ..problem import Problem
from .claims import Claims, Reproduction, check_ratio, over_seeds, table
from .trainings import Curves, final, load, train

FULL = {
    "problem": "digits", "examples": None, "batch_size": 64, "steps": 2000,
    "minibatch_steps": 4000, "evaluations": 40,
}  # fmt: skip
QUICK = {
    "problem": "digits", "examples": 500, "batch_size": 32, "steps": 200,
    "minibatch_steps": 480, "evaluations": 10,
}  # fmt: skip
MULTIPLES = (0.5, 1.0, 2.0)
_, ONE, TWO = NAMES = tuple(f"{c:g} × Newton" for c in MULTIPLES)
OURS = "ours"
FULL_BATCH, MINIBATCH = "full batch", "minibatch"
_ITERATIONS = 15  # of the power method
_TINY = 1e-30
Found = dict[str, dict[str, Curves]]  # by regime and kind of step


def run(
    problem: str, examples: int | None, minibatch_steps: int, *, steps: int, **budget: Any
) -> Reproduction:
    """Train with multiples of the Newton step and with ours, in full batch and with noise."""
    loaded = load(problem, examples)
    whole = budget | {"batch_size": loaded.examples, "steps": steps}
    found = {
        FULL_BATCH: compute(loaded, FULL_BATCH, **whole),
        MINIBATCH: compute(loaded, MINIBATCH, steps=minibatch_steps, **budget),
    }
    rows = {
        f"{regime}, {name}": {
            "train loss": curves["train_loss"][:, -1].mean(),
            "sharpness": np.median(curves["sharpness"][:, -1]),
            "step size × sharpness": np.median(step_size_times_sharpness(curves)[:, -1]),
        }
        for regime, by_name in found.items()
        for name, curves in by_name.items()
    }
    tables = {"at the end, mean and medians over the seeds": table("steps", rows)}
    return Reproduction(draw(loaded.name, found), judge(found), over_seeds(found), tables)


def compute(problem: Problem, regime: str, **budget: Any) -> dict[str, Curves]:
    """Curves with the multiples and with ours."""
    budget |= {"metrics": step_size_and_sharpness(problem), "eval_examples": problem.examples}
    theirs = train(
        problem,
        lambda setting: newton_steps(setting["multiple"]),
        [{"multiple": c} for c in MULTIPLES],
        label=f"multiples, {regime}",
        **budget,
    )
    ours = train(
        problem, lambda _: scale_by_expected_improvement(), label=f"{OURS}, {regime}", **budget
    )
    return dict(zip((*NAMES, OURS), theirs + ours, strict=True))


class NewtonState(NamedTuple):
    """State of `newton_steps`: the last step size."""

    step_size: jax.Array

    def metrics(self) -> dict[str, jax.Array]:
        return {"step_size": self.step_size}


def newton_steps(multiple: jax.typing.ArrayLike) -> optax.GradientTransformationExtraArgs:
    """Steps c ‖g‖²/|h| along the gradient, no longer than the parameters."""

    def update_fn(updates, state, params=None, *, value_fn=None, **extra_args):
        assert value_fn is not None
        del state, extra_args
        norm = jnp.maximum(optax.tree.norm(updates), _TINY)
        direction = optax.tree.scale(-1 / norm, updates)
        curvature = jnp.abs(observe(value_fn, params, direction).curvature)
        newton_length = norm / jnp.maximum(curvature, _TINY)
        length = jnp.minimum(multiple * newton_length, optax.tree.norm(params))
        return optax.tree.scale(length, direction), NewtonState(length / norm)

    return optax.GradientTransformationExtraArgs(
        lambda params: NewtonState(jnp.zeros(())), update_fn
    )


def step_size_and_sharpness(problem: Problem) -> Callable[[Any, Any, Any], dict[str, jax.Array]]:
    """Metrics: the step size, and the largest eigenvalue of the Hessian over the data."""

    def read(state: Any, params: Any, data: Any) -> dict[str, jax.Array]:
        return {
            "step_size": metrics(state)["step_size"],
            "sharpness": sharpness(lambda p: problem.losses(p, data, jax.random.key(0)), params),
        }

    return read


def sharpness(value_fn: Callable[[Any], jax.Array], params: Any) -> jax.Array:
    """Largest eigenvalue of the Hessian in magnitude, by the power method."""

    def step(_: int, carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
        vector = optax.tree.scale(1 / jnp.maximum(optax.tree.norm(carry[0]), _TINY), carry[0])
        product = hvp(value_fn, params, vector)
        return product, jnp.asarray(optax.tree.vdot(vector, product))

    start = optax.tree.random_like(jax.random.key(2020), params)
    return jax.lax.fori_loop(0, _ITERATIONS, step, (start, jnp.zeros(())))[1]


def judge(found: Found) -> Claims:
    """The edge in full batch, what noise does to it, and where ours stands."""
    ends = {
        regime: {name: final(curves["train_loss"]) for name, curves in by_name.items()}
        for regime, by_name in found.items()
    }
    full, mini = ends[FULL_BATCH], ends[MINIBATCH]
    product = step_size_times_sharpness(found[FULL_BATCH][TWO])
    second_half = np.maximum(product[:, product.shape[1] // 2 :], 1e-9)
    ours = {
        f"{regime}: ours ends within 10 % of the best multiple": check_ratio(
            by_name[OURS] / min((by_name[name] for name in NAMES), key=np.mean), at_most=1.1
        )
        for regime, by_name in ends.items()
    }
    return {
        "full batch: twice the Newton step trains at the edge of stability: step size × "
        "sharpness lies between 1.5 and 4 (second half, geometric mean)": check_ratio(
            gmean(second_half, axis=1), at_least=1.5, at_most=4
        ),
        "full batch: twice the Newton step ends lower than the Newton step": check_ratio(
            full[TWO] / full[ONE], at_most=1
        ),
        "minibatch: twice the Newton step ends higher than the Newton step": check_ratio(
            mini[TWO] / mini[ONE], at_least=1
        ),
        **ours,
    }


def step_size_times_sharpness(curves: Curves) -> np.ndarray:
    return curves["step_size"] * curves["sharpness"]


def draw(problem: str, found: Found) -> Figure:
    quantities: dict[str, Callable[[Curves], np.ndarray]] = {
        "train loss": lambda curves: curves["train_loss"],
        "sharpness": lambda curves: np.abs(curves["sharpness"]),
        "step size × sharpness": lambda curves: np.abs(step_size_times_sharpness(curves)),
    }
    shown = {
        f"{regime}: {name}": {
            label: (curves["step"], read(curves)) for label, curves in by_name.items()
        }
        for regime, by_name in found.items()
        for name, read in quantities.items()
    }
    title = f"Newton steps at the edge of stability, {problem}"
    figure, places = plots.band_panels(title, shown, len(quantities), 11, 6.6)
    for axes in places[2::3]:
        axes.axhline(2, color="0.3", ls=":", lw=1.2)
    return figure
