"""What the step rule keeps from step to step, and what it tells of the step it has chosen."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..curvature import LineBelief
from ..curvature._tree import PyTree, real_dtype
from ..curvature._validation import check_params
from ._trust_region import TrustRegion

PATIENCE = 10  # batches in a row that are not finite, of which the last blames the step; at first


class StepInfo(NamedTuple):
    """What only `metrics` shows: carried on, but no decision of a later step depends on it."""

    realized_change: jax.Array
    slope_ratio: jax.Array
    differentiation: jax.Array
    num_rejected: jax.Array


class StepState(NamedTuple):
    """What the step rule keeps of the step it has chosen: scalars only.

    `step_size`, `outcome` and `info` are there to be shown: no later step depends on them.

    Attributes:
      count: batches that were finite, int32.
      belief: about the line of the step chosen last; its value is the filtered loss.
      value_noise: moving average of r, the variance of a batch's mean loss.
      direction_norm: ‖d‖ of its direction.
      params_norm: ‖θ‖ when the curvature was last measured.
      distance: α, the length of the step chosen last; 0 where it was taken back, or the parameters
        returned to the average.
      step_size: α/‖d‖ of this update; 0 after a bad batch.
      outcome: what became of the step before, or what is done in place of a step: an `Outcome`,
        int32.
      trust: state of the trust region.
      gradient_mismatch: relative deviation of the given gradient's slope from that of `value_fn`.
      num_bad: batches in a row that were not finite, int32.
      patience: bad batches in a row after which the step is taken back, int32.
      info: what `metrics` shows besides.
    """

    count: jax.Array
    belief: LineBelief
    value_noise: jax.Array
    direction_norm: jax.Array
    params_norm: jax.Array
    distance: jax.Array
    step_size: jax.Array
    outcome: jax.Array
    trust: Any
    gradient_mismatch: jax.Array
    num_bad: jax.Array
    patience: jax.Array
    info: StepInfo

    def metrics(self) -> dict[str, jax.Array]:
        """Scalars for `mekax.optimizers.metrics`, where they are explained."""
        belief = self.belief
        limits = jnp.finfo(self.distance.dtype)
        tiny, most = float(limits.tiny), float(limits.max)
        length = jnp.maximum(self.direction_norm, tiny)
        curvature = jnp.maximum(jnp.abs(belief.curvature), tiny)
        spread = belief.slope_variance + jnp.square(self.distance) * belief.curvature_variance
        # Compiled, the two divisions may become one by a product that is 0.
        deviation = jnp.where(spread > 0, jnp.sqrt(spread) / curvature / length, 0.0)
        snr = jnp.square(belief.slope) / jnp.maximum(belief.slope_variance, tiny)
        return {
            "step_size": self.step_size,
            "outcome": self.outcome,
            "step_size_std": jnp.minimum(deviation, most),
            "slope": belief.slope,
            "slope_std": jnp.sqrt(belief.slope_variance),
            "curvature": belief.curvature,
            "curvature_std": jnp.sqrt(belief.curvature_variance),
            "direction_norm": self.direction_norm,
            "snr": jnp.minimum(snr, most),
            "radius": jnp.minimum(self.trust.radius / length, most),
            "num_adaptations": self.trust.count,
            "loss_mean": belief.value,
            "loss_std": jnp.sqrt(belief.value_variance),
            "predicted_change": belief.change(self.distance),
            "gradient_mismatch": self.gradient_mismatch,
            **self.info._asdict(),
        }


class ExpectedImprovementState(NamedTuple):
    """State of `scale_by_expected_improvement`.

    Attributes:
      params: where the next displacement counts from: the parameters at the last finite batch, or
        the average after a return there.
      horizon: `HorizonState`, the averages of the iterates; () where the trust region has no use
        for them.
      step: what the rule keeps, scalars.
    """

    params: PyTree
    horizon: Any
    step: StepState


def init_step(params: PyTree, trust_region: TrustRegion) -> StepState:
    """Build the state before the first step."""
    check_params(params, complex_too=True)
    dtype = real_dtype(*jax.tree.leaves(params))

    # Every leaf is an array of its own: shared ones cannot be donated.
    def zero() -> jax.Array:
        return jnp.zeros((), dtype)

    def integer() -> jax.Array:
        return jnp.zeros((), jnp.int32)

    return StepState(
        count=integer(),
        belief=LineBelief(*(zero() for _ in LineBelief._fields)),
        value_noise=zero(),
        direction_norm=zero(),
        params_norm=zero(),
        distance=zero(),
        step_size=zero(),
        outcome=integer(),
        trust=trust_region.init(dtype),
        gradient_mismatch=zero(),
        num_bad=integer(),
        patience=integer() + PATIENCE,
        info=StepInfo(zero(), zero() + 1, integer(), integer()),
    )
