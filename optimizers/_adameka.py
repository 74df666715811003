from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..curvature import Covariance
from ..curvature._mapped_axis import AxisName
from ..curvature._push_forward import Differentiation
from ..curvature._trees import widen, zeros_like
from ._acquisitions import Acquisition, AcquisitionName
from ._ema import debias, update_ema
from ._expected_improvement import step_rule
from ._kalman_filter import Statistics, gradient_filter
from ._mask import masked
from ._self_tuning import Preconditioner, self_tuning

_SECOND_MOMENT_DECAY = 0.999
_EPSILON = 1e-8  # relative to the largest entry, so that scaling the loss changes nothing


def adameka(
    acquisition: AcquisitionName | Acquisition = "expected_improvement",
    statistics: Statistics = "sketched",
    covariance: Covariance = "scalar",
    calibrate: bool = True,
    max_step_size: jax.typing.ArrayLike | None = None,
    mask: Any = None,
    decay: float = 0.99,
    seed: int = 0,
    differentiation: Differentiation = "forward",
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Self-tuning descent on the Adam-scaled direction: `meka` for badly conditioned problems.

        v ← β v + (1 − β) g²,    d = −m / (√v̂ + ε),    α, θ as in `meka`

    m is the mean of the gradient filter, v̂ the bias-corrected second moment of the plain
    gradients with β = 0.999, ε = 10⁻⁸ times the largest √v̂. The length of d plays no part, as
    slope and curvature are measured along it.

    The publication's scaling, m / (√(m² + P) + ε) with isotropic P, gives coordinates that never
    see a gradient the same weight as all others wherever P dominates; the second moment does not.

    Args:
      acquisition: see `meka`.
      statistics: see `meka`.
      covariance: see `meka`.
      calibrate: see `meka`.
      max_step_size: see `meka`; α multiplies the scaled direction.
      mask: see `meka`.
      decay: see `meka`.
      seed: see `meka`.
      differentiation: see `meka`.
      axis_name: see `meka`.

    Returns:
      A transformation used exactly as `meka`.

    Raises:
      ValueError, TypeError: as `meka`.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from mekax.optimizers import adameka
      >>> tx = adameka()
      >>> params = jnp.array([1.0, -1.0])
      >>> state = tx.init(params)
      >>> value_fn = lambda w: jnp.sum(jnp.array([1.0, 100.0]) * w**2)
      >>> for _ in range(50):
      ...     updates, state = tx.update(jax.grad(value_fn)(params), state, params,
      ...                                value_fn=value_fn)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(value_fn(params) < 1e-3)
      True

    Source: Chen et al. (2020), arXiv 2011.04803, for AdaMEKA; Kingma & Ba (2015) for the scaling.
    """

    def init(params):
        return zeros_like(params, wide=True)

    def update(second_moment, gradient, count):
        del count
        squares = jax.tree.map(jnp.square, widen(gradient))
        return update_ema(second_moment, squares, _SECOND_MOMENT_DECAY)

    def apply(second_moment, mean, count):
        scale = jax.tree.map(jnp.sqrt, debias(second_moment, _SECOND_MOMENT_DECAY, count))
        largest = jnp.max(jnp.stack([jnp.max(x) for x in jax.tree.leaves(scale) if x.size]))
        floor = jnp.where(largest > 0, _EPSILON * largest, 1)
        return jax.tree.map(lambda m, s: m / (s + floor), mean, scale)

    filtering = gradient_filter(statistics, covariance, decay, seed, differentiation, axis_name)
    rule = step_rule(acquisition, calibrate, max_step_size, decay)
    scaling = Preconditioner(init, update, apply)
    tx = self_tuning("adameka", filtering, scaling, rule, differentiation, axis_name)
    return masked(tx, mask)
