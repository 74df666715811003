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
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...curvature import quadratic_form
from ...optimizers import meka, scale_by_kalman_filter
from ..lanes import Budget, Method
from ..problems import Problem
from . import drawing
from .claims import Claim, Reproduction, Table, check, over_seeds
from .registry import Report, quiet
from .trainings import Trained, load, published, train

RATE = 0.1
DECAY = 0.99  # of the filter's variances, its default
PROBES = 64
CHUNK = 250  # examples whose gradient is taken at a time
WITHIN = 1.96  # standard deviations, for 95 %
FIXED, PUBLISHED, OURS = "fixed step", "published steps", "our steps"
_COLORS = {FIXED: drawing.BLUE, PUBLISHED: drawing.RED, OURS: drawing.GREEN}


class Size(NamedTuple):
    """How much to compute; the true gradient is over all the examples."""

    problem: str
    examples: int
    batch_size: int
    steps: int
    looks: int


FULL = Size("cifar10", examples=50_000, batch_size=128, steps=3900, looks=39)
QUICK = Size("cifar10-small", examples=2000, batch_size=32, steps=240, looks=12)


def run(out: Path, quick: bool, seeds: int, report: Report = quiet) -> Reproduction:
    """Train on the filtered gradient and compare it with the true one at every look."""
    size = QUICK if quick else FULL
    problem = load(size.problem, quick, size.examples, 500)
    found = compute(problem, size, seeds, report)
    _draw(out, problem.name, found, quick)
    return Reproduction(
        settings={
            **size._asdict(),
            "problem": problem.name,
            "step_size": RATE,
            "probes": PROBES,
            "seeds": seeds,
            "quick": quick,
        },
        data={
            "step": found[FIXED].looks,
            **{
                name: {gauge: over_seeds(v[0]) for gauge, v in trained.gauges.items()}
                for name, trained in found.items()
            },
        },
        claims=judge(found),
        tables=[_table(found)],
    )


def compute(problem: Problem, size: Size, seeds: int, report: Report = quiet) -> dict[str, Trained]:
    """Trainings by name, whose gauges are those of `gauges`."""
    methods = {
        FIXED: lambda: optax.chain(scale_by_kalman_filter(), optax.scale(-RATE)),
        PUBLISHED: published,
        OURS: meka,
    }
    budget = Budget(size.steps, size.batch_size, size.looks, judged=size.examples)
    found = {}
    for name, make in methods.items():
        method = Method(_remembering(make), gauges=gauges(problem))
        found[name] = train(problem, method, [{}], seeds, budget, name, report)
    return found


def gauges(problem: Problem) -> Callable[[Any, Any, Any], dict[str, jax.Array]]:
    """What to read at a look: where the filter was last, and the gradient of the last batch."""

    def read(state: Any, params: Any, data: Any) -> dict[str, jax.Array]:
        del params  # the filter has not seen them yet
        gradient, filtered = state[0], _filter_of(state)
        mean, variance = filtered.belief
        noise = optax.tree.bias_correction(filtered.noise, DECAY, filtered.count)
        truth = full_gradient(problem, filtered.params, data)
        error = optax.tree.sub(mean, truth)
        surprise = optax.tree.sub(gradient, mean)
        ones = optax.tree.ones_like(mean)
        stated = quadratic_form(variance, ones)
        apart = optax.tree.sub(gradient, truth)
        # m = m⁻ + K (g − m⁻) and P⁻ + Σ = Σ/(1 − K) give the innovation from what is kept.
        rest = 1 - filtered.gain
        return {
            "true": optax.tree.norm(truth),
            "batch error": optax.tree.norm(apart),
            "filter error": optax.tree.norm(error),
            "stated error": jnp.sqrt(stated),
            "innovation": optax.tree.norm(surprise, squared=True)
            / (quadratic_form(noise, ones) * rest),
            "normalized error": optax.tree.norm(error, squared=True) / stated,
            "coverage": _coverage(error, stated),
            "slope": jnp.asarray(optax.tree.vdot(mean, truth))
            / optax.tree.norm(mean, squared=True),
        }

    return read


def full_gradient(problem: Problem, params: Any, data: Any) -> Any:
    """Gradient of the mean loss over the data, a chunk at a time."""
    count = jax.tree.leaves(data)[0].shape[0]
    chunk = min(CHUNK, count)
    whole = count - count % chunk
    chunks = jax.tree.map(lambda x: x[:whole].reshape(-1, chunk, *x.shape[1:]), data)

    def of_chunk(total: Any, batch: Any) -> tuple[Any, None]:
        grads = jax.grad(lambda p: jnp.mean(problem.losses(p, batch, jax.random.key(0))))(params)
        return jax.tree.map(jnp.add, total, grads), None

    total, _ = jax.lax.scan(of_chunk, jax.tree.map(jnp.zeros_like, params), chunks)
    return jax.tree.map(lambda x: x * (chunk / whole), total)


def judge(found: dict[str, Trained]) -> list[Claim]:
    """Hold the trainings to what was published of the filter, and the filter to what it states."""
    claims = []
    for name, trained in found.items():
        claims.append(
            check(
                f"{name}: the error of the filtered gradient is about five times smaller than that "
                "of the batch's (3 to 8 times, mean over the training)",
                np.exp(_late(trained, _log_ratio)),
                at_least=3,
                at_most=8,
                ratio=True,
            )
        )
    for name in (PUBLISHED, OURS):
        trained = found[name]
        claims += [
            check(
                f"{name}: innovations are as large as the filter expects (normalized, 0.8 to 1.25)",
                np.exp(_late(trained, lambda g: np.log(g["innovation"]))),
                at_least=0.8,
                at_most=1.25,
                ratio=True,
            ),
            check(
                f"{name}: the stated variance is right within a factor 2 (normalized error, 0.5 "
                "to 2)",
                np.exp(_late(trained, lambda g: np.log(g["normalized error"]))),
                at_least=0.5,
                at_most=2,
                ratio=True,
            ),
            check(
                f"{name}: 95 % intervals cover the truth in 90 to 99 % of random directions",
                _late(trained, lambda g: g["coverage"]),
                at_least=0.90,
                at_most=0.99,
            ),
            check(
                f"{name}: the slope that the filter predicts along its own mean is there (ratio, "
                "0.8 to 1.2)",
                _late(trained, lambda g: g["slope"]),
                at_least=0.8,
                at_most=1.2,
            ),
        ]
    return claims


def _remembering(make: Callable[[], Any]) -> Callable[..., Any]:
    """Put a memory of the newest gradient before an optimizer."""

    def update_fn(updates, state, params=None, **extra_args):
        del state, params, extra_args
        return updates, updates

    def init_fn(params):
        return jax.tree.map(jnp.zeros_like, params)

    memory = optax.GradientTransformationExtraArgs(init_fn, update_fn)
    return lambda setting, steps: optax.chain(memory, make())


def _filter_of(state: Any) -> Any:
    """The filter's part of a state: the one that has a gain."""

    def has_gain(part: Any) -> bool:
        return hasattr(part, "gain")

    return next(filter(has_gain, jax.tree.leaves(state, is_leaf=has_gain)))


def _coverage(error: Any, stated: jax.Array) -> jax.Array:
    """Part of the random directions of ±1 along which the error is within its interval."""
    leaves, structure = jax.tree.flatten(error)

    def along(key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, len(leaves))
        signs = [
            jax.random.rademacher(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)
        ]
        return jnp.asarray(optax.tree.vdot(jax.tree.unflatten(structure, signs), error))

    shares = jax.lax.map(along, jax.random.split(jax.random.key(2020), PROBES))
    return jnp.mean(jnp.abs(shares) <= WITHIN * jnp.sqrt(stated))


def _log_ratio(gauges: dict[str, np.ndarray]) -> np.ndarray:
    return np.log(gauges["batch error"] / gauges["filter error"])


def _late(trained: Trained, of: Callable[[dict[str, np.ndarray]], np.ndarray]) -> np.ndarray:
    """Mean over the looks but the first, when the filter has seen little, by seed."""
    return of({name: values[0, :, 1:] for name, values in trained.gauges.items()}).mean(axis=-1)


def _table(found: dict[str, Trained]) -> Table:
    names = ("innovation", "normalized error", "coverage", "slope")
    rows = [
        (
            name,
            f"{np.exp(_late(trained, _log_ratio).mean()):.2f}",
            *(f"{_late(trained, lambda g, n=n: g[n]).mean():.3g}" for n in names),
        )
        for name, trained in found.items()
    ]
    header = ("training", "error of batch ÷ filter", *names)
    return Table("mean over the training and the seeds", header, rows)


def _draw(out: Path, problem: str, found: dict[str, Trained], quick: bool) -> None:
    figure = drawing.figure(f"Error of the filtered gradient, {problem}", quick, 11, 6.6)
    errors, ratios, consistency, along = drawing.grid(figure, 2, 4)
    for name, trained in found.items():
        g, color = {k: v[0] for k, v in trained.gauges.items()}, _COLORS[name]
        looks = trained.looks
        drawing.band(errors, looks, g["batch error"], color, f"{name}: batch", "--")
        drawing.band(errors, looks, g["filter error"], color, f"{name}: filter")
        drawing.band(ratios, looks, g["batch error"] / g["filter error"], color, name)
        drawing.band(consistency, looks, g["innovation"], color, f"{name}: innovation", "--")
        drawing.band(consistency, looks, g["normalized error"], color, f"{name}: error")
        drawing.band(along, looks, g["slope"], color, f"{name}: slope")
        drawing.band(along, looks, g["coverage"], color, f"{name}: coverage", "--")
    ratios.axhline(5, color="0.3", ls=":", lw=1.2, label="published")
    consistency.axhline(1, color="0.3", ls=":", lw=1.2)
    along.axhline(0.95, color="0.3", ls=":", lw=1.2)
    errors.set(yscale="log", title="distance to the true gradient")
    ratios.set(yscale="log", title="error of the batch ÷ error of the filter")
    consistency.set(yscale="log", title="squared, over what is stated (1 if the variance is right)")
    along.set(title="part of the predicted slope that is there; coverage at 95 %")
    for axes in (errors, ratios, consistency, along):
        axes.title.set_fontsize(10)
        axes.legend(fontsize=7, frameon=False)
        axes.set_xlabel("step")
    drawing.save(figure, out, "gradient-error")
