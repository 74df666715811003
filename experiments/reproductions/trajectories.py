"""Paths on a stochastic Rosenbrock function of two variables: the filtered one does not diffuse.

    f(θ, ξ) = (1 + ξ₁ − θ₁)² + 5 (θ₂ + ξ₂ − θ₁²)²,    ξ ~ N(0, σ² I)

The noise changes gradients and curvatures, and moves neither the valley nor the minimum. As a
contrast, noise σ' ξ·θ that is only added: all examples have one Hessian, so Q = 0, and the filter
takes its transport to be exact, which it is not.

Source: Chen et al. (2020), arXiv 2011.04803, figure 1.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...optimizers import meka, scale_by_kalman_filter
from . import drawing
from .claims import Claim, Reproduction, check, short
from .registry import Report, quiet
from .simulation import path
from .trainings import published

START = (-1.2, 1.6)
STEEP = 5.0
NOISE = 0.3
ADDED = 3.0
BATCH = 4
RATE = 0.015
MOMENTUM = 0.9
CALMER = 5.0
LONGER = 5  # times the steps that gradient descent without noise is followed for
EXACT, SGD, HEAVY = "gradient descent", "SGD", "momentum"
FIXED, PUBLISHED, OURS = "filter, fixed step", "filter, published steps", "filter, our steps"


Losses = Callable[[jax.Array, jax.Array], jax.Array]
NAMES = (EXACT, SGD, HEAVY, FIXED, PUBLISHED, OURS)


def _height(params: jax.Array) -> jax.Array:
    """Excess loss of points, shape (…, 2)."""
    return _losses(params, jnp.zeros(2))


def _losses(params: jax.Array, noise: jax.Array) -> jax.Array:
    x, y = params[..., 0], params[..., 1]
    across = y + NOISE * noise[..., 1] - jnp.square(x)
    return jnp.square(1 + NOISE * noise[..., 0] - x) + STEEP * jnp.square(across)


def _with_added_noise(params: jax.Array, noise: jax.Array) -> jax.Array:
    return _height(params) + ADDED * noise @ params


class Size(NamedTuple):
    """How much to compute."""

    steps: int


FULL, QUICK = Size(steps=600), Size(steps=300)


def run(out: Path, quick: bool, seeds: int, report: Report = quiet) -> Reproduction:
    """Follow six methods from one starting point through the same noise."""
    size = QUICK if quick else FULL
    paths = compute(size, seeds, report)
    contrast = compute(size, seeds, report, _with_added_noise, (FIXED, PUBLISHED, OURS))
    _draw(out, paths, quick)
    thinned = {
        name: short(values[0, :: max(1, size.steps // 150)]) for name, values in paths.items()
    }
    return Reproduction(
        settings={
            "start": START,
            "steep": STEEP,
            "noise": NOISE,
            "added_noise": ADDED,
            "batch_size": BATCH,
            "step_size": RATE,
            "momentum": MOMENTUM,
            **size._asdict(),
            "seeds": seeds,
            "quick": quick,
        },
        data={
            "path of the first seed": thinned,
            "excess loss at the end": short(_ends(paths)),
            "excess loss at the end, noise only added": short(_ends(contrast)),
        },
        claims=judge(paths, contrast),
    )


def compute(
    size: Size,
    seeds: int,
    report: Report = quiet,
    losses: Losses = _losses,
    names: Sequence[str] = NAMES,
) -> dict[str, np.ndarray]:
    """Paths by method, each of shape (seeds, steps, 2); that without noise is longer, and one."""
    shape = (seeds, size.steps, BATCH, 2)
    noise = jax.random.normal(jax.random.key(2020), shape)
    silence = jnp.zeros((1, LONGER * size.steps, BATCH, 2))
    paths = {}
    methods = _methods()
    for name in names:
        report(name)

        def follow(batches: jax.Array, tx=methods[name]) -> jax.Array:
            return path(tx, losses, jnp.array(START), batches)

        batches = silence if name == EXACT else noise
        paths[name] = np.asarray(jax.jit(jax.vmap(follow))(batches))
    return paths


def judge(paths: dict[str, np.ndarray], contrast: dict[str, np.ndarray]) -> list[Claim]:
    """Compare how far the paths stray, and where they end."""
    stray = {name: _stray(values, paths[EXACT][0]) for name, values in paths.items()}
    ends, apart = _ends(paths), _ends(contrast)
    return [
        check(
            f"with one step size, SGD strays at least {CALMER:g} times farther from the line of "
            "gradient descent than the filtered path (second half)",
            stray[SGD] / stray[FIXED],
            at_least=CALMER,
            ratio=True,
        ),
        check(
            f"momentum of the same effective step strays at least {CALMER:g} times farther",
            stray[HEAVY] / stray[FIXED],
            at_least=CALMER,
            ratio=True,
        ),
        check(
            "the filtered path does not diffuse: it strays less in the second half than in the "
            "first (ratio below 1)",
            stray[FIXED] / _stray(paths[FIXED], paths[EXACT][0], 0.0, 0.5),
            at_most=1,
            ratio=True,
        ),
        check(
            "published steps on the filter end lower than a fixed step (ratio of excess losses)",
            ends[PUBLISHED] / ends[FIXED],
            at_most=1,
            ratio=True,
        ),
        check(
            "our steps on the filter end lower than a fixed step (ratio of excess losses)",
            ends[OURS] / ends[FIXED],
            at_most=1,
            ratio=True,
        ),
        *(
            check(
                f"{whose} steps end lower than a fixed step also where noise is only added, so "
                "that the filter takes its transport to be exact",
                apart[name] / apart[FIXED],
                at_most=1,
                ratio=True,
            )
            for whose, name in (("published", PUBLISHED), ("our", OURS))
        ),
    ]


def _methods() -> dict[str, optax.GradientTransformationExtraArgs]:
    def plain(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
        return optax.with_extra_args_support(tx)

    return {
        EXACT: plain(optax.sgd(RATE)),
        SGD: plain(optax.sgd(RATE)),
        HEAVY: plain(optax.sgd(RATE * (1 - MOMENTUM), momentum=MOMENTUM)),
        FIXED: optax.chain(scale_by_kalman_filter(), optax.scale(-RATE)),
        PUBLISHED: published(),
        OURS: meka(),
    }


def _stray(
    values: np.ndarray, line: np.ndarray, begin: float = 0.5, end: float = 1.0
) -> np.ndarray:
    """Root of the mean squared distance to the nearest point of a line, over a part, by seed."""
    steps = values.shape[1]
    part = values[:, int(begin * steps) : int(end * steps)]
    apart = np.square(part[:, :, None] - line[:: max(1, len(line) // 500)]).sum(-1)
    return np.sqrt(apart.min(axis=2).mean(axis=1))


def _ends(paths: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Excess loss averaged over the last tenth, by seed."""
    last = max(1, next(iter(paths.values())).shape[1] // 10)
    return {
        name: np.asarray(_height(jnp.asarray(p[:, -last:]))).mean(axis=1)
        for name, p in paths.items()
    }


def _draw(out: Path, paths: dict[str, np.ndarray], quick: bool) -> None:
    figure = drawing.figure("Paths on a stochastic Rosenbrock function", quick, 11, 6.4)
    x, y = np.meshgrid(np.linspace(-2.2, 2.2, 200), np.linspace(-1.5, 3.5, 200))
    height = np.asarray(_height(jnp.stack([x, y], axis=-1)))
    for axes, color, (name, values) in zip(
        drawing.grid(figure, 3, len(paths)), drawing.CYCLE[::-1], paths.items(), strict=False
    ):
        axes.contour(
            x, y, height, levels=np.geomspace(0.05, 200, 14), colors="0.85", linewidths=0.7
        )
        axes.plot(*paths[EXACT][0].T, color="0.5", lw=1, ls=":")
        for one in values[:3]:
            axes.plot(*np.vstack([START, one]).T, color=color, lw=0.9, alpha=0.8)
        axes.plot(1, 1, "k*", ms=9)
        axes.set(title=name, xlim=(-2.2, 2.2), ylim=(-1.5, 3.5))
        axes.title.set_fontsize(10)
    drawing.save(figure, out, "trajectories")
