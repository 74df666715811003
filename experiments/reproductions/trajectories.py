"""Paths on a stochastic Rosenbrock function of two variables: the filtered one does not diffuse.

    f(θ, ξ) = (1 + ξ₁ − θ₁)² + 5 (θ₂ + ξ₂ − θ₁²)²,    ξ ~ N(0, σ² I)

The noise changes gradients and curvatures, and moves neither the valley nor the minimum. As a
contrast, noise σ' ξ·θ that is only added: all examples have one Hessian, so Q = 0, and the filter
takes its transport to be exact, which it is not.

Source: Chen et al. (2020), arXiv 2011.04803, figure 1.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from ...optimizers import meka, scale_by_kalman_filter
from .. import plots
from .claims import Claims, Reproduction, check_ratio
from .trainings import Makers, paths, published

FULL, QUICK = {"steps": 600}, {"steps": 300}
START = (-1.2, 1.6)
STEEP = 5.0
NOISE = 0.3
ADDED_NOISE = 3.0
BATCH_SIZE = 4
RATE = 0.015
MOMENTUM = 0.9
LONGER = 5  # times the steps that gradient descent without noise is followed for
EXACT, SGD, HEAVY = "gradient descent", "SGD", "momentum"
FIXED, PUBLISHED, OURS = "filter, fixed step", "filter, published steps", "filter, our steps"
OPTIMIZERS: Makers = {
    EXACT: lambda: optax.sgd(RATE),
    SGD: lambda: optax.sgd(RATE),
    HEAVY: lambda: optax.sgd(RATE * (1 - MOMENTUM), momentum=MOMENTUM),
    FIXED: lambda: optax.chain(scale_by_kalman_filter(), optax.scale(-RATE)),
    PUBLISHED: published,
    OURS: meka,
}
Losses = Callable[[jax.Array, jax.Array], jax.Array]
Paths = dict[str, np.ndarray]  # by optimizer, of shape (seeds, steps, 2)


def run(steps: int, *, seeds: int) -> Reproduction:
    """Follow six optimizers from one starting point through the same noise."""
    found = compute(steps, seeds)
    contrast = compute(steps, seeds, losses_with_added_noise, (FIXED, PUBLISHED, OURS))
    stride = max(1, steps // 150)
    data = {
        "path of the first seed": {name: p[0, ::stride] for name, p in found.items()},
        "excess loss at the end": end(found),
        "excess loss at the end, noise only added": end(contrast),
    }
    return Reproduction(draw(found), judge(found, contrast), data)


def losses(params: jax.Array, noise: jax.Array) -> jax.Array:
    x, y = params[..., 0], params[..., 1]
    across = y + NOISE * noise[..., 1] - jnp.square(x)
    return jnp.square(1 + NOISE * noise[..., 0] - x) + STEEP * jnp.square(across)


def excess_loss(params: jax.Array) -> jax.Array:
    """Of points, shape (…, 2), without noise."""
    return losses(params, jnp.zeros(2))


def losses_with_added_noise(params: jax.Array, noise: jax.Array) -> jax.Array:
    return excess_loss(params) + ADDED_NOISE * noise @ params


def compute(
    steps: int, seeds: int, losses: Losses = losses, names: Sequence[str] = tuple(OPTIMIZERS)
) -> Paths:
    """Paths by optimizer; that without noise is longer, and a single one."""
    noise = jax.random.normal(jax.random.key(2020), (seeds, steps, BATCH_SIZE, 2))
    silence = jnp.zeros((1, LONGER * steps, BATCH_SIZE, 2))
    found = {}
    for name in names:
        batches = silence if name == EXACT else noise
        starts = jnp.tile(jnp.array(START), (len(batches), 1))
        found[name] = paths(name, OPTIMIZERS[name](), losses, starts, batches)
    return found


def judge(found: Paths, contrast: Paths) -> Claims:
    """Compare how far the paths stray, and where they end."""
    line = found[EXACT][0]
    half = found[FIXED].shape[1] // 2
    stray = {name: distance(found[name][:, half:], line) for name in (SGD, HEAVY, FIXED)}
    earlier = distance(found[FIXED][:, :half], line)
    ends, contrast_ends = end(found), end(contrast)
    adaptive = {"published": PUBLISHED, "our": OURS}
    lower = {
        f"{whose} steps on the filter end lower than a fixed step (ratio of excess losses)": (
            check_ratio(ends[name] / ends[FIXED], at_most=1)
        )
        for whose, name in adaptive.items()
    }
    lower_in_contrast = {
        f"{whose} steps end lower than a fixed step also where noise is only added, so "
        "that the filter takes its transport to be exact": check_ratio(
            contrast_ends[name] / contrast_ends[FIXED], at_most=1
        )
        for whose, name in adaptive.items()
    }
    return {
        "with one step size, SGD strays at least 5 times farther from the line of gradient "
        "descent than the filtered path (second half)": check_ratio(
            stray[SGD] / stray[FIXED], at_least=5
        ),
        "momentum of the same effective step strays at least 5 times farther": check_ratio(
            stray[HEAVY] / stray[FIXED], at_least=5
        ),
        "the filtered path does not diffuse: it strays less in the second half than in the "
        "first (ratio below 1)": check_ratio(stray[FIXED] / earlier, at_most=1),
        **lower,
        **lower_in_contrast,
    }


def distance(values: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Root of the mean squared distance to the nearest point of a line, by seed."""
    apart = np.square(values[:, :, None] - line[:: max(1, len(line) // 500)]).sum(-1)
    return np.sqrt(apart.min(axis=2).mean(axis=1))


def end(found: Paths) -> Paths:
    """Excess loss averaged over the last tenth, by seed."""
    last = max(1, next(iter(found.values())).shape[1] // 10)
    return {
        name: np.asarray(excess_loss(jnp.asarray(values[:, -last:]))).mean(axis=1)
        for name, values in found.items()
    }


def draw(found: Paths) -> Figure:
    figure, places = plots.panels("Paths on a stochastic Rosenbrock function", 2, 3, 11, 6.4)
    x, y = np.meshgrid(np.linspace(-2.2, 2.2, 200), np.linspace(-1.5, 3.5, 200))
    height = np.asarray(excess_loss(jnp.stack([x, y], axis=-1)))
    levels = np.geomspace(0.05, 200, 14)
    for axes, (name, values) in zip(places, found.items(), strict=True):
        axes.contour(x, y, height, levels=levels, colors="0.85", linewidths=0.7)
        axes.plot(*found[EXACT][0].T, color="0.5", lw=1, ls=":")
        for points in values[:3]:
            axes.plot(*np.vstack([START, points]).T, lw=0.9, alpha=0.8)
        axes.plot(1, 1, "k*", ms=9)
        axes.set(title=name, xlim=(-2.2, 2.2), ylim=(-1.5, 3.5))
    return figure
