"""A noisy quadratic: the filtered gradient converges, the plain one stalls.

    f(θ, ξ) = ½ (θ − ξ)ᵀ H (θ − ξ),    ξ ~ N(0, I),    f(θ) − f* = ½ θᵀ H θ

The transport by Hessian-vector products is exact here and Q = 0, so the filter averages all
gradients seen, P_t = Σ/(t + 1), and the excess loss under a constant step α ≤ 1/L is O(1/t).
Source: Chen et al. (2020), arXiv 2011.04803, section 3.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from scipy.stats import gmean

from ...optimizers import (
    meka,
    newton_trust_region,
    scale_by_expected_improvement,
    scale_by_kalman_filter,
)
from .. import plots
from .claims import Claims, Reproduction, check, check_ratio, over_seeds
from .trainings import Makers, paths, published

FULL, QUICK = {"steps": 5000}, {"steps": 1000}
DIMENSION = 20
CONDITION = 2000.0
BATCH_SIZE = 8
SMALL = 0.02  # step size of the cautious SGD, times 1/L
SGD, EXACT, FILTER = "SGD, α = 1/L", "gradient descent, α = 1/L", "filter, α = 1/L"
PUBLISHED, OURS, UNFILTERED = "filter, published steps", "filter, our steps", "SGD, published steps"
OPTIMIZERS: Makers = {  # L = 1
    SGD: lambda: optax.sgd(1.0),
    f"SGD, α = {SMALL:g}/L": lambda: optax.sgd(SMALL),
    EXACT: lambda: optax.sgd(1.0),
    FILTER: lambda: optax.chain(scale_by_kalman_filter(), optax.scale(-1.0)),
    PUBLISHED: published,
    OURS: meka,
    UNFILTERED: lambda: scale_by_expected_improvement(
        "probability_of_improvement", newton_trust_region()
    ),
}
Curves = dict[str, np.ndarray]  # excess losses by optimizer, of shape (seeds, steps)


def run(steps: int, *, seeds: int) -> Reproduction:
    """Compare filter, SGD and exact gradient descent, with constant and with chosen steps."""
    eigenvalues = jnp.logspace(-jnp.log10(CONDITION), 0.0, DIMENSION)  # L = 1

    def losses(params: jax.Array, batch: jax.Array | float) -> jax.Array:
        return 0.5 * jnp.sum(eigenvalues * jnp.square(params - batch), axis=-1)

    def draw_path(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        start_key, batch_key = jax.random.split(key)
        noise = jax.random.normal(batch_key, (steps, BATCH_SIZE, DIMENSION))
        return jax.random.normal(start_key, (DIMENSION,)), noise

    starts, noise = jax.vmap(draw_path)(jax.random.split(jax.random.key(2020), seeds))
    curves = {}
    for name, make in OPTIMIZERS.items():
        found = paths(name, make(), losses, starts, 0 * noise if name == EXACT else noise)
        curves[name] = np.asarray(losses(jnp.asarray(found), 0.0))
    kept = np.unique(np.geomspace(1, steps, 120).astype(int))
    data = {"step": kept, **over_seeds({k: v[:, kept - 1] for k, v in curves.items()})}
    return Reproduction(draw(curves), judge(curves), data)


def judge(curves: Curves) -> Claims:
    """Fit the decay of each seed over the last decade, and compare the ends."""
    times = np.arange(1, curves[FILTER].shape[1] + 1)
    last_decade = times >= times[-1] / 10
    logs = np.log(curves[FILTER][:, last_decade])
    slopes = np.polyfit(np.log(times[last_decade]), logs.T, 1)[0]
    beginning = times <= 0.1 * times[-1]
    near = gmean((curves[FILTER] / curves[EXACT])[:, beginning], axis=1)
    ends = {name: values[:, times > 0.9 * times[-1]].mean(1) for name, values in curves.items()}
    below_constant = {
        f"{whose} steps on the filter end below a constant step on it": check_ratio(
            ends[name] / ends[FILTER], at_most=1
        )
        for whose, name in (("published", PUBLISHED), ("our", OURS))
    }
    return {
        "excess loss of the filter is O(1/t): log-log slope over the last decade of steps is "
        "at most -0.8": check(slopes, at_most=-0.8),
        "SGD with the same step stalls at least 50 times higher (last tenth)": check_ratio(
            ends[SGD] / ends[FILTER], at_least=50
        ),
        "the filter stays near gradient descent without noise: at most 2 times its excess "
        "loss over the first tenth of the steps": check_ratio(near, at_most=2),
        "published steps are unstable on plain gradients: they end at least 10 times higher "
        "than on the filter": check_ratio(ends[UNFILTERED] / ends[PUBLISHED], at_least=10),
        **below_constant,
    }


def draw(curves: Curves) -> Figure:
    title = f"Noisy quadratic, d = {DIMENSION}, κ = {CONDITION:g}, batch {BATCH_SIZE}"
    figure, (axes,) = plots.panels(title, 1, 1, 7.5, 5.2)
    times = np.arange(1, curves[FILTER].shape[1] + 1)
    for name, values in curves.items():
        plots.band(axes, times, values, name)
    reference = np.median(curves[FILTER][:, len(times) // 10]) * len(times) / 10
    axes.plot(times, reference / times, "k:", label="1/t")
    floor = min(float(curves[name].min()) for name in (FILTER, OURS)) / 10
    axes.set(xscale="log", yscale="log", xlabel="step", ylim=(max(1e-8, floor), None))
    axes.set_ylabel("excess loss f(θ) − f* (median and range of seeds)")
    plots.legend_below(figure, axes, 3)
    return figure
