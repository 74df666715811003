"""What makes a step size good, given a Gaussian model of the change of the loss.

An acquisition maps a `LineBelief` and step sizes to utilities of the same shape; the step rule
takes the maximizer over its trust region. Any callable of this form may be passed as
`acquisition=`; only the order of the utilities counts.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from ..curvature import LineBelief
from ..curvature._tree import safe_sqrt
from ._normal import log_improvement

Acquisition = Callable[[LineBelief, jax.Array], jax.Array]
AcquisitionName = Literal["expected_improvement", "probability_of_improvement", "expected_decrease"]


def log_expected_improvement(belief: LineBelief, step_size: jax.Array) -> jax.Array:
    """Logarithm of the expected improvement, finite where the value itself underflows.

        log E[max(−Δ(α), 0)] = log √v + log(φ(z) + z Φ(z)),    z = −μ/√v

    Only the uncertainty that the step brings counts, v = α² p + α³ c + ¼ α⁴ q: the noise of the
    two loss values would promise improvement without a step. v → 0 gives log max(−μ, 0), with z
    limited to ±10⁷ in float32 (1/eps), so that the result stays finite.

    Args:
      belief: the change of the loss along the direction.
      step_size: α ≥ 0, any shape.

    Returns:
      The logarithm, in log-units of loss; finite for every finite input.

    Example:
      >>> import jax.numpy as jnp
      >>> belief = LineBelief(0.0, 0.0, jnp.array(-1.0), 0.0, 1.0, 0.0, 0.0)
      >>> float(log_expected_improvement(belief, jnp.array(1.0)))  # log s²/2h, no noise
      -0.693147...

    Source: Mockus (1975); Ament et al. (2023), arXiv 2310.20708, for the logarithm.
    """
    change = belief.change(step_size)
    std = _resolved(safe_sqrt(belief.change_variance(step_size)), change)
    return jnp.log(std) + log_improvement(-change / std)


def expected_improvement(belief: LineBelief, step_size: jax.Array) -> jax.Array:
    """Expected improvement E[max(−Δ(α), 0)] = −μ Φ(z) + √v φ(z), z = −μ/√v.

    v = α² p + α³ c + ¼ α⁴ q is the variance that the step brings. Its maximizer is −s/h without
    noise and grows with noise; with q > 0 it is unbounded, because a Gaussian curvature leaves mass
    on unbounded descent, so it is maximized over a trust region only.

    Args:
      belief: the change of the loss along the direction.
      step_size: α ≥ 0, any shape.

    Returns:
      The expected improvement in units of loss, ≥ 0.

    Example:
      >>> import jax.numpy as jnp
      >>> belief = LineBelief(0.0, 0.0, jnp.array(0.0), 1.0, 0.0, 0.0, 0.0)
      >>> float(expected_improvement(belief, jnp.array(1.0)))  # φ(0)
      0.398942...

    Source: Mockus (1975); Jones et al. (1998), equation 15.
    """
    return jnp.exp(log_expected_improvement(belief, step_size))


def log_probability_of_improvement(belief: LineBelief, step_size: jax.Array) -> jax.Array:
    """Logarithm of the probability of improvement, log Φ(z), accurate in the lower tail.

    See `probability_of_improvement`. Where nothing is uncertain it is 0 for a decrease and very
    negative for an increase.
    """
    return jax.scipy.stats.norm.logcdf(_score(belief, step_size))


def probability_of_improvement(belief: LineBelief, step_size: jax.Array) -> jax.Array:
    """Probability P(Δ(α) < 0) = Φ(z), z = −μ/√(2r + v): the published choice.

    v is the variance that the step brings, r that of the filtered loss. Its maximizer lies in
    (0, −s/h] and goes to 0 with r.

    Args:
      belief: the change of the loss along the direction.
      step_size: α ≥ 0, any shape.

    Returns:
      A probability.

    Example:
      >>> import jax.numpy as jnp
      >>> belief = LineBelief(0.0, 0.5, jnp.array(-1.0), 0.0, 2.0, 0.0, 0.0)
      >>> float(probability_of_improvement(belief, jnp.array(1.0)))  # no expected change
      0.5

    Source: Chen et al. (2020), arXiv 2011.04803, section 4; Kushner (1964).
    """
    return jax.scipy.stats.norm.cdf(_score(belief, step_size))


def expected_decrease(belief: LineBelief, step_size: jax.Array) -> jax.Array:
    """Expected decrease −μ(α) = −α s − ½ α² h: the quadratic rule, maximal at −s/h.

    Example:
      >>> import jax.numpy as jnp
      >>> belief = LineBelief(0.0, 0.0, jnp.array(-1.0), 0.0, 2.0, 0.0, 0.0)
      >>> float(expected_decrease(belief, jnp.array(0.5)))
      0.25
    """
    return -belief.change(step_size)


def improvement_threshold(probability: float = 0.9) -> Acquisition:
    """Build the rule "the largest step whose probability of improvement is at least τ".

    The step solves −s − ½ α h = z_τ √(p + α c + ¼ α² q): −2s/h, the edge of stability, without
    noise, and 0 where the slope itself is less certain than τ. The noise of the loss values plays
    no part, as it does not depend on the step.

    Args:
      probability: τ, strictly between ½ and 1.

    Returns:
      An acquisition: α itself where P(improve) ≥ τ, −α elsewhere.

    Raises:
      ValueError: if τ is not between ½ and 1.

    Example:
      >>> import jax.numpy as jnp
      >>> belief = LineBelief(0.0, 0.0, jnp.array(-1.0), 0.0, 1.0, 0.0, 0.0)
      >>> improvement_threshold(0.9)(belief, jnp.array([1.9, 2.1])).tolist()
      [1.8999..., -2.0999...]
    """
    if not 0.5 < probability < 1.0:
        raise ValueError(
            f"mekax: expected a probability strictly between 0.5 and 1, got {probability}. "
            "Below one half every direction would do; 0.9 is a usual choice."
        )

    def threshold(belief: LineBelief, step_size: jax.Array) -> jax.Array:
        change = belief.change(step_size)
        quantile = jax.scipy.stats.norm.ppf(jnp.asarray(probability, change.dtype))
        feasible = -change >= quantile * safe_sqrt(belief.change_variance(step_size))
        return jnp.where(feasible, step_size, -step_size)

    return threshold


def _score(belief: LineBelief, step_size: jax.Array) -> jax.Array:
    """Z = −μ/√(2r + v), the argument of Φ; finite, with ±1/eps standing for certainty."""
    change = belief.change(step_size)
    variance = belief.change_variance(step_size) + 2 * belief.value_variance
    return -change / _resolved(safe_sqrt(variance), change)


def _resolved(std: jax.Array, change: jax.Array) -> jax.Array:
    """A standard deviation that is never below the rounding of the mean, nor 0."""
    limits = jnp.finfo(change.dtype)
    return jnp.maximum(std, float(limits.eps) * jnp.abs(change)) + float(limits.tiny)


# The rule maximizes the logarithms: same maximizer, no underflow.
_NAMED: dict[str, Acquisition] = {
    "expected_improvement": log_expected_improvement,
    "probability_of_improvement": _score,
    "expected_decrease": expected_decrease,
}


def resolve_acquisition(acquisition: AcquisitionName | Acquisition | None) -> Acquisition | None:
    """Look up an acquisition by name, or return the callable; raise with the names otherwise."""
    if acquisition is None or callable(acquisition):
        return acquisition
    if isinstance(acquisition, int | float):  # as in adam(1e-3), whose first argument is a rate
        raise TypeError(
            f"mekax: expected no learning rate, got {acquisition!r} as the first argument, which "
            f"is acquisition. Leave it out, or pass max_step_size={acquisition!r} as a cap."
        )
    if acquisition not in _NAMED:
        raise ValueError(
            f"mekax: acquisition must be one of {', '.join(map(repr, _NAMED))} or a callable "
            f"(belief, step_size) -> utility, got {acquisition!r}. Pass one of these."
        )
    return _NAMED[acquisition]
