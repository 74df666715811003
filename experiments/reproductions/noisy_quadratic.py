"""A noisy quadratic: the filtered gradient converges, the plain one stalls.

    f(θ, ξ) = ½ (θ − ξ)ᵀ H (θ − ξ),    ξ ~ N(0, I),    f(θ) − f* = ½ θᵀ H θ

The transport by Hessian-vector products is exact here and Q = 0, so the filter averages all
gradients seen, P_t = Σ/(t + 1), and the excess loss under a constant step α ≤ 1/L is O(1/t).
Source: Chen et al. (2020), arXiv 2011.04803, section 3.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...optimizers import (
    meka,
    newton_trust_region,
    scale_by_expected_improvement,
    scale_by_kalman_filter,
)
from . import drawing
from .claims import Claim, Reproduction, check, over_seeds, short
from .registry import Report, quiet
from .simulation import path
from .trainings import published

DIMENSION = 20
CONDITION = 2000.0
BATCH = 8
FULL_STEPS, QUICK_STEPS = 5000, 1000
SMALL = 0.02  # step size of the cautious SGD, times 1/L
SLOPE_BOUND = -0.8
STALL_RATIO = 50.0
NEAR = 2.0
UNSTABLE = 10.0
FILTER, SGD, EXACT = "filter, α = 1/L", "SGD, α = 1/L", "gradient descent, α = 1/L"
CAUTIOUS = f"SGD, α = {SMALL:g}/L"
PUBLISHED, OURS, UNFILTERED = "filter, published steps", "filter, our steps", "SGD, published steps"
_COLORS = {
    SGD: drawing.RED,
    CAUTIOUS: drawing.ORANGE,
    EXACT: drawing.BLACK,
    FILTER: drawing.BLUE,
    PUBLISHED: drawing.SKY,
    OURS: drawing.GREEN,
    UNFILTERED: drawing.PINK,
}


def run(out: Path, quick: bool, seeds: int, report: Report = quiet) -> Reproduction:
    """Compare filter, SGD and exact gradient descent, with constant and with chosen steps."""
    steps = QUICK_STEPS if quick else FULL_STEPS
    keys = jax.random.split(jax.random.key(2020), seeds)
    curves = {}
    for name, (tx, noise) in _methods().items():
        report(name)
        curves[name] = np.asarray(jax.jit(jax.vmap(_excess_losses(tx, steps, noise)))(keys))
    times = np.arange(1, steps + 1)
    _draw(out, times, curves, quick)
    return Reproduction(
        settings={
            "dimension": DIMENSION,
            "condition": CONDITION,
            "batch_size": BATCH,
            "steps": steps,
            "step_size": 1.0,
            "seeds": seeds,
            "quick": quick,
        },
        data={"step": _thin(times), **{k: over_seeds(_thin(v)) for k, v in curves.items()}},
        claims=_judge(times, curves),
    )


def _methods() -> dict[str, tuple[optax.GradientTransformationExtraArgs, float]]:
    """Transformations, where 1/L = 1, and the scale of the noise each of them sees."""
    plain = optax.with_extra_args_support(optax.sgd(1.0))
    unfiltered = scale_by_expected_improvement("probability_of_improvement", newton_trust_region())
    return {
        SGD: (plain, 1.0),
        CAUTIOUS: (optax.with_extra_args_support(optax.sgd(SMALL)), 1.0),
        EXACT: (plain, 0.0),
        FILTER: (optax.chain(scale_by_kalman_filter(), optax.scale(-1.0)), 1.0),
        PUBLISHED: (published(), 1.0),
        OURS: (meka(), 1.0),
        UNFILTERED: (unfiltered, 1.0),
    }


def _excess_losses(tx: optax.GradientTransformationExtraArgs, steps: int, noise: float):
    """Build the function from a key to the excess losses after every step."""
    eigenvalues = jnp.logspace(-jnp.log10(CONDITION), 0.0, DIMENSION)  # L = 1

    def losses(params: jax.Array, batch: jax.Array) -> jax.Array:
        return 0.5 * jnp.sum(eigenvalues * jnp.square(params - batch), axis=1)

    def trajectory(key: jax.Array) -> jax.Array:
        start_key, batch_key = jax.random.split(key)
        start = jax.random.normal(start_key, (DIMENSION,))
        batches = noise * jax.random.normal(batch_key, (steps, BATCH, DIMENSION))
        params = path(tx, losses, start, batches)
        return 0.5 * jnp.sum(eigenvalues * jnp.square(params), axis=1)

    return trajectory


def _judge(times: np.ndarray, curves: dict[str, np.ndarray]) -> list[Claim]:
    """Fit the decay of each seed over the last decade, and compare the ends."""
    last_decade = times >= times[-1] / 10
    logs = np.log(curves[FILTER][:, last_decade])
    slopes = np.polyfit(np.log(times[last_decade]), logs.T, 1)[0]
    tail, begin = times > 0.9 * times[-1], times <= 0.1 * times[-1]

    def end(name: str) -> np.ndarray:
        return curves[name][:, tail].mean(axis=1)

    near = np.exp(np.log(curves[FILTER] / curves[EXACT])[:, begin].mean(axis=1))
    return [
        check(
            f"excess loss of the filter is O(1/t): log-log slope over the last decade of steps "
            f"is at most {SLOPE_BOUND}",
            slopes,
            at_most=SLOPE_BOUND,
        ),
        check(
            f"SGD with the same step stalls at least {STALL_RATIO:g} times higher (last tenth)",
            end(SGD) / end(FILTER),
            at_least=STALL_RATIO,
            ratio=True,
        ),
        check(
            f"the filter stays near gradient descent without noise: at most {NEAR:g} times its "
            "excess loss over the first tenth of the steps",
            near,
            at_most=NEAR,
            ratio=True,
        ),
        check(
            f"published steps are unstable on plain gradients: they end at least {UNSTABLE:g} "
            "times higher than on the filter",
            end(UNFILTERED) / end(PUBLISHED),
            at_least=UNSTABLE,
            ratio=True,
        ),
        check(
            "published steps on the filter end below a constant step on it",
            end(PUBLISHED) / end(FILTER),
            at_most=1,
            ratio=True,
        ),
        check(
            "our steps on the filter end below a constant step on it",
            end(OURS) / end(FILTER),
            at_most=1,
            ratio=True,
        ),
    ]


def _thin(curve: np.ndarray, points: int = 120) -> np.ndarray:
    """Keep logarithmically spaced steps, along the last axis."""
    kept = np.unique(np.geomspace(1, curve.shape[-1], points).astype(int)) - 1
    return short(curve[..., kept])


def _draw(out: Path, times: np.ndarray, curves: dict[str, np.ndarray], quick: bool) -> None:
    title = f"Noisy quadratic, d = {DIMENSION}, κ = {CONDITION:g}, batch {BATCH}"
    figure = drawing.figure(title, quick, 7.5, 5.2)
    axes = drawing.plain(figure.add_subplot())
    for name, values in curves.items():
        drawing.band(axes, times, values, _COLORS[name], name)
    reference = np.median(curves[FILTER][:, len(times) // 10]) * len(times) / 10
    axes.plot(times, reference / times, "k:", label="1/t")
    floor = min(float(curves[name].min()) for name in (FILTER, OURS)) / 10
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="step",
        ylabel="excess loss f(θ) − f* (median and range of seeds)",
    )
    axes.set_ylim(bottom=max(1e-8, floor))
    drawing.legend_below(figure, axes, 3)
    drawing.save(figure, out, "noisy-quadratic")
