"""How far the filtered gradient is from the true one, and whether it knows how far.

With ∇f over all examples that are trained on, e = m − ∇f and the stated variance P of the filter,

    error of the batch, error of the filter      ‖g − ∇f‖, ‖m − ∇f‖
    normalized innovation                        ‖g − m⁻‖² / tr(P⁻ + Σ)          1 if P is right
    normalized error                             ‖e‖² / tr P                     1
    coverage                                     P(|z·e| ≤ 1.96 √(z·Pz))         0.95, z of ±1
    part of the predicted slope that is there    m·∇f / ‖m‖²                     1

Source: Chen et al. (2020), arXiv 2011.04803, section 3.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from scipy.stats import gmean

from ...curvature import quadratic_form
from ...optimizers import meka, scale_by_kalman_filter
from .. import plots
from ..problem import Problem
from .claims import Claims, Reproduction, check, check_ratio, over_seeds, table
from .trainings import Curves, Makers, Transformation, load, published, train

FULL = {
    "problem": "cifar10", "examples": 50_000, "batch_size": 128, "steps": 3900, "evaluations": 39,
}  # fmt: skip
QUICK = {
    "problem": "cifar10-small|digits-cnn", "examples": 2000,
    "batch_size": 32, "steps": 240, "evaluations": 12,
}  # fmt: skip
RATE = 0.1
DECAY = 0.99  # of the filter's variances, its default
PROBES = 64
CHUNK = 250  # examples whose gradient is taken at a time
WITHIN = 1.96  # standard deviations, for 95 %
FIXED, PUBLISHED, OURS = "fixed step", "published steps", "our steps"
RULES: Makers = {
    FIXED: lambda: optax.chain(scale_by_kalman_filter(), optax.scale(-RATE)),
    PUBLISHED: published,
    OURS: meka,
}
CONSISTENT = ("innovation", "normalized error", "coverage", "slope")


def run(problem: str, examples: int, *, seeds: int, **budget: Any) -> Reproduction:
    """Train on the filtered gradient and compare it with the true one at every evaluation."""
    loaded = load(problem, examples, test=500)
    budget |= {"seeds": seeds, "eval_examples": examples}  # the truth is over all the examples
    found = {name: compute(loaded, name, **budget) for name in RULES}
    rows = {
        name: {
            "error of batch ÷ filter": gmean(smaller(curves)),
            **{metric: late(curves[metric]).mean() for metric in CONSISTENT},
        }
        for name, curves in found.items()
    }
    tables = {"mean over the training and the seeds": table("training", rows)}
    picture = draw(loaded.name, found)
    settings = {"problem": loaded.name}
    return Reproduction(picture, judge(found), over_seeds(found), tables, settings)


def compute(problem: Problem, name: str, **budget: Any) -> Curves:
    """Curves of the metrics of `errors`."""

    def build(setting: Any) -> Transformation:
        # A trace without decay keeps the newest gradient in the state.
        return optax.chain(optax.trace(decay=0.0), RULES[name]())

    return train(problem, build, label=name, metrics=errors(problem), **budget)[0]


def errors(problem: Problem) -> Callable[[Any, Any, Any], dict[str, jax.Array]]:
    """What is measured at an evaluation: at the last batch and the parameters that it saw."""

    def is_filter(part: Any) -> bool:
        return hasattr(part, "gain")

    def metrics(state: Any, params: Any, data: Any) -> dict[str, jax.Array]:
        del params  # the filter has not seen them yet
        parts = jax.tree.leaves(state, is_leaf=is_filter)
        gradient, filtered = state[0].trace, next(filter(is_filter, parts))
        mean, variance = filtered.belief
        noise = optax.tree.bias_correction(filtered.noise, DECAY, filtered.count)
        truth = full_gradient(problem, filtered.params, data)
        error = optax.tree.sub(mean, truth)
        ones = optax.tree.ones_like(mean)
        stated = quadratic_form(variance, ones)
        # m = m⁻ + K (g − m⁻) and P⁻ + Σ = Σ/(1 − K) give the innovation from what is kept.
        innovation = optax.tree.norm(optax.tree.sub(gradient, mean), squared=True)
        rest = 1 - filtered.gain
        slope = jnp.asarray(optax.tree.vdot(mean, truth))
        return {
            "true": optax.tree.norm(truth),
            "batch error": optax.tree.norm(optax.tree.sub(gradient, truth)),
            "filter error": optax.tree.norm(error),
            "stated error": jnp.sqrt(stated),
            "innovation": innovation / (quadratic_form(noise, ones) * rest),
            "normalized error": optax.tree.norm(error, squared=True) / stated,
            "coverage": coverage(error, stated),
            "slope": slope / optax.tree.norm(mean, squared=True),
        }

    return metrics


def full_gradient(problem: Problem, params: Any, data: Any) -> Any:
    """Gradient of the mean loss over the data, a chunk at a time."""
    count = jax.tree.leaves(data)[0].shape[0]
    chunk = min(CHUNK, count)
    kept = count - count % chunk
    chunks = jax.tree.map(lambda x: x[:kept].reshape(-1, chunk, *x.shape[1:]), data)

    def add(total: Any, batch: Any) -> tuple[Any, None]:
        grads = jax.grad(lambda p: jnp.mean(problem.losses(p, batch, jax.random.key(0))))(params)
        return optax.tree.add(total, grads), None

    total, _ = jax.lax.scan(add, optax.tree.zeros_like(params), chunks)
    return optax.tree.scale(chunk / kept, total)


def coverage(error: Any, stated: jax.Array) -> jax.Array:
    """Part of the random directions of ±1 along which the error is within its interval."""

    def along(key: jax.Array) -> jax.Array:
        signs = optax.tree.random_like(key, error, sampler=jax.random.rademacher)
        return jnp.asarray(optax.tree.vdot(signs, error))

    shares = jax.lax.map(along, jax.random.split(jax.random.key(2020), PROBES))
    return jnp.mean(jnp.abs(shares) <= WITHIN * jnp.sqrt(stated))


def judge(found: dict[str, Curves]) -> Claims:
    """Hold the trainings to what was published of the filter, and the filter to what it states."""
    claims = {}
    for name, curves in found.items():
        statement = (
            f"{name}: the error of the filtered gradient is about five times smaller than that "
            "of the batch's (3 to 8 times, mean over the training)"
        )
        claims[statement] = check_ratio(smaller(curves), at_least=3, at_most=8)
    for name in (PUBLISHED, OURS):
        curves = found[name]
        claims |= {
            f"{name}: innovations are as large as the filter expects (normalized, 0.8 to 1.25)": (
                check_ratio(gmean(late(curves["innovation"]), axis=1), at_least=0.8, at_most=1.25)
            ),
            f"{name}: the stated variance is right within a factor 2 (normalized error, 0.5 "
            "to 2)": check_ratio(
                gmean(late(curves["normalized error"]), axis=1), at_least=0.5, at_most=2
            ),
            f"{name}: 95 % intervals cover the truth in 90 to 99 % of random directions": (
                check(late(curves["coverage"]).mean(axis=1), at_least=0.90, at_most=0.99)
            ),
            f"{name}: the slope that the filter predicts along its own mean is there (ratio, "
            "0.8 to 1.2)": check(late(curves["slope"]).mean(axis=1), at_least=0.8, at_most=1.2),
        }
    return claims


def late(values: np.ndarray) -> np.ndarray:
    """All evaluations but the first, when the filter has seen little."""
    return values[:, 1:]


def smaller(curves: Curves) -> np.ndarray:
    """How many times smaller the error of the filter is than that of the batch, by seed."""
    return gmean(late(curves["batch error"] / curves["filter error"]), axis=1)


def draw(problem: str, found: dict[str, Curves]) -> Figure:
    title = f"Error of the filtered gradient, {problem}"
    figure, (distances, ratios, consistency, along) = plots.panels(title, 2, 2, 11, 6.6)
    for name, curves in found.items():
        step = curves["step"]
        ratio = curves["batch error"] / curves["filter error"]
        color = plots.band(ratios, step, ratio, name)
        for axes, solid, dashed in (
            (distances, "filter error", "batch error"),
            (consistency, "normalized error", "innovation"),
            (along, "slope", "coverage"),
        ):
            plots.band(axes, step, curves[solid], f"{name}: {solid}", color=color)
            plots.band(axes, step, curves[dashed], f"{name}: {dashed}", "--", color=color)
    ratios.axhline(5, color="0.3", ls=":", lw=1.2, label="published")
    consistency.axhline(1, color="0.3", ls=":", lw=1.2)
    along.axhline(0.95, color="0.3", ls=":", lw=1.2)
    distances.set(yscale="log", title="distance to the true gradient")
    ratios.set(yscale="log", title="error of the batch ÷ error of the filter")
    consistency.set(yscale="log", title="squared, over what is stated (1 if the variance is right)")
    along.set(title="part of the predicted slope that is there; coverage at 95 %")
    for axes in (distances, ratios, consistency, along):
        axes.legend(fontsize=7, frameon=False)
        axes.set_xlabel("step")
    return figure
