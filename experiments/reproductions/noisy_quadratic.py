"""Constant steps on a noisy quadratic: the filtered gradient converges, the plain one stalls.

    f(θ, ξ) = ½ (θ − ξ)ᵀ H (θ − ξ),    ξ ~ N(0, I),    f(θ) − f* = ½ θᵀ H θ

The transport by Hessian-vector products is exact here and Q = 0, so the filter averages all
gradients seen, P_t = Σ/(t + 1), and the excess loss under a constant step α ≤ 1/L is O(1/t).
Source: Chen et al. (2020), arXiv 2011.04803, section 3.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax

from ...optimizers import scale_by_kalman_filter
from ..intervals import bootstrap_mean
from .claims import Claim, Reproduction

DIMENSION = 20
CONDITION = 2000.0
BATCH = 8
FULL_STEPS, QUICK_STEPS = 5000, 1000
SLOPE_BOUND = -0.8
STALL_RATIO = 50.0


def run(out: Path, quick: bool, seeds: int) -> Reproduction:
    """Compare filter, SGD and exact gradient descent at α = 1/L; draw and judge the curves."""
    steps = QUICK_STEPS if quick else FULL_STEPS
    curves = {
        name: np.asarray(jax.jit(jax.vmap(_excess_losses(tx, steps, noise)))(_keys(seeds)))
        for name, (tx, noise) in _methods().items()
    }
    times = np.arange(1, steps + 1)
    _draw(out / "noisy-quadratic.png", times, curves, quick)
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
        data={"step": _thin(times), **{k: _thin(v.mean(0)) for k, v in curves.items()}},
        claims=_judge(times, curves),
    )


def _methods() -> dict[str, tuple[optax.GradientTransformationExtraArgs, float]]:
    """Transformations at the step 1/L = 1, and the scale of the noise each of them sees."""
    plain = optax.with_extra_args_support(optax.sgd(1.0))
    filtered = optax.chain(scale_by_kalman_filter(), optax.scale(-1.0))
    return {"SGD": (plain, 1.0), "filtered gradient": (filtered, 1.0), "exact": (plain, 0.0)}


def _keys(seeds: int) -> jax.Array:
    return jax.random.split(jax.random.key(2020), seeds)


def _excess_losses(tx: optax.GradientTransformationExtraArgs, steps: int, noise: float):
    """Build the function from a key to the excess losses after every step."""
    eigenvalues = jnp.logspace(-jnp.log10(CONDITION), 0.0, DIMENSION)  # L = 1

    def trajectory(key: jax.Array) -> jax.Array:
        start_key, batch_key = jax.random.split(key)
        start = jax.random.normal(start_key, (DIMENSION,))

        def step(carry, step_key):
            params, state = carry
            batch = noise * jax.random.normal(step_key, (BATCH, DIMENSION))

            def losses(p):
                return 0.5 * jnp.sum(eigenvalues * jnp.square(p - batch), axis=1)

            grads = jax.grad(lambda p: losses(p).mean())(params)
            updates, state = tx.update(grads, state, params, value_fn=losses)
            params = jnp.asarray(optax.apply_updates(params, updates))
            return (params, state), 0.5 * jnp.sum(eigenvalues * jnp.square(params))

        carry = (start, tx.init(start))
        return jax.lax.scan(step, carry, jax.random.split(batch_key, steps))[1]

    return trajectory


def _judge(times: np.ndarray, curves: dict[str, np.ndarray]) -> list[Claim]:
    """Fit the decay of each seed over the last decade, and compare the ends."""
    last_decade = times >= times[-1] / 10
    logs = np.log(curves["filtered gradient"][:, last_decade])
    slopes = np.polyfit(np.log(times[last_decade]), logs.T, 1)[0]
    slope = bootstrap_mean(slopes)
    tail = times > 0.9 * times[-1]
    ratios = curves["SGD"][:, tail].mean(1) / curves["filtered gradient"][:, tail].mean(1)
    ratio = bootstrap_mean(ratios)
    return [
        Claim(
            f"excess loss of the filter is O(1/t): log-log slope over the last decade of steps "
            f"is at most {SLOPE_BOUND}",
            slope.mean,
            (slope.low, slope.high),
            slope.mean <= SLOPE_BOUND,
        ),
        Claim(
            f"SGD with the same step stalls at least {STALL_RATIO:g} times higher (last tenth)",
            ratio.mean,
            (ratio.low, ratio.high),
            ratio.mean >= STALL_RATIO,
        ),
    ]


def _thin(curve: np.ndarray, points: int = 300) -> np.ndarray:
    """Keep logarithmically spaced steps."""
    kept = np.unique(np.geomspace(1, len(curve), points).astype(int)) - 1
    return curve[kept]


def _draw(path: Path, times: np.ndarray, curves: dict[str, np.ndarray], quick: bool) -> None:
    figure = matplotlib.figure.Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for (name, values), color in zip(curves.items(), ("C3", "C0", "0.4"), strict=True):
        low, middle, high = np.percentile(values, [10, 50, 90], axis=0)
        axes.fill_between(times, low, high, color=color, alpha=0.2, linewidth=0)
        axes.plot(times, middle, color=color, label=name)
    reference = np.median(curves["filtered gradient"][:, len(times) // 10]) * len(times) / 10
    axes.plot(times, reference / times, "k:", label="1/t")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="step",
        ylabel="excess loss f(θ) − f*",
        title=f"Noisy quadratic, d = {DIMENSION}, κ = {CONDITION:g}, α = 1/L"
        + (" (quick)" if quick else ""),
    )
    axes.set_ylim(bottom=max(1e-8, _floor(curves)))
    axes.grid(alpha=0.3)
    axes.legend(title="median, 10–90 % of seeds")
    figure.savefig(path, dpi=150)


def _floor(curves: dict[str, np.ndarray]) -> float:
    """Lowest excess loss worth showing: a tenth of the filter's lowest."""
    return float(curves["filtered gradient"].min()) / 10
