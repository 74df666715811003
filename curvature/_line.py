"""What is believed of the loss along a line, and what one batch shows of it.

The convention of everything along a line θ + α v: slope = v·∇f, negative where the loss falls, and
curvature = v·∇²f v, both per unit of α.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ._derivatives import (
    DIFFERENTIATIONS,
    Differentiation,
    NoDerivativeError,
    check_differentiation,
    difference_step,
    directional_derivatives,
    mean_gradient,
    shifted,
)
from ._mapped_axis import AxisName, as_local, axis_size
from ._tree import PyTree, dot, widen
from ._validation import ValueFn, per_example_losses


class LineBelief(NamedTuple):
    """Gaussian belief about the loss along a line θ + α v; all scalars.

        f(θ + α v) − f(θ) ~ N(α s + ½ α² h,  α² p + α³ c + ¼ α⁴ q)

    One batch is such a belief as well: its means, and the variances of these means.

    Attributes:
      value: mean of the loss at α = 0.
      value_variance: its variance.
      slope: s = v·∇f, negative where the loss falls.
      slope_variance: p.
      curvature: h = v·∇²f v, of any sign.
      curvature_variance: q.
      covariance: c, of slope and curvature.

    Source: Chen et al. (2020), arXiv 2011.04803, section 4, which leaves out the covariance.
    """

    value: jax.Array
    value_variance: jax.Array
    slope: jax.Array
    slope_variance: jax.Array
    curvature: jax.Array
    curvature_variance: jax.Array
    covariance: jax.Array

    def change(self, step: jax.Array) -> jax.Array:
        """Mean of the change of the loss over a step α, α s + ½ α² h."""
        return step * (self.slope + 0.5 * step * self.curvature)

    def change_variance(self, step: jax.Array) -> jax.Array:
        """Variance of the change of the loss that the step itself brings, α² p + α³ c + ¼ α⁴ q."""
        half = 0.5 * step
        mixed = self.slope_variance + half * (2 * self.covariance + half * self.curvature_variance)
        # Rounding may leave less than nothing of what is a square.
        return jnp.square(step) * jnp.maximum(mixed, 0)

    def rescaled(self, length: jax.Array) -> "LineBelief":
        """The same belief with α in units of `length`."""
        square = jnp.square(length)
        return self._replace(
            slope=self.slope * length,
            slope_variance=self.slope_variance * square,
            curvature=self.curvature * square,
            curvature_variance=self.curvature_variance * jnp.square(square),
            covariance=self.covariance * length * square,
        )


def observe(
    value_fn: ValueFn,
    params: PyTree,
    direction: PyTree,
    differentiation: Differentiation = "auto",
    axis_name: AxisName | None = None,
) -> LineBelief:
    """Value, slope and curvature of a batch along a direction, and how much examples differ.

    One pass of nested forward mode gives all three for every example; the variances are those of
    the batch means (`_moments.py` states the normalization), 0 for a scalar `value_fn`.

    Args:
      value_fn: parameters to per-example losses, shape (n,), or to a scalar.
      params: θ.
      direction: v, a pytree like `params`; α is in units of it.
      differentiation: `"auto"`: forward mode, or differences of gradients between θ ± εv for
        models without a forward-mode rule; `"forward"`, `"reverse"`, `"differences"`.
      axis_name: mapped axis over which the batch is split, or None.

    Returns:
      `LineBelief`, scalars in float32 or wider.

    Raises:
      ValueError, TypeError: if `value_fn` does not return losses of shape (n,) or a scalar; where
        the chosen differentiation meets a primitive without a rule.

    Example:
      >>> import jax.numpy as jnp
      >>> seen = observe(lambda w: (w - jnp.array([0.0, 2.0])) ** 2 / 2,
      ...                jnp.array([1.0]), jnp.array([1.0]))
      >>> float(seen.slope), float(seen.slope_variance), float(seen.curvature)
      (0.0, 1.0, 1.0)
    """
    return observe_with_mode(value_fn, params, direction, differentiation, axis_name)[0]


def observe_with_mode(
    value_fn: ValueFn,
    params: PyTree,
    direction: PyTree,
    differentiation: Differentiation,
    axis_name: AxisName | None,
) -> tuple[LineBelief, int]:
    """`observe`, and the index in `DIFFERENTIATIONS` of what was found to work."""
    tangent = optax.tree.cast_like(direction, params)
    check_differentiation(differentiation)
    # As `resolve` would decide, without tracing the losses once more where forward mode works.
    mode = "forward" if differentiation == "auto" else differentiation
    if mode != "differences":
        try:
            point, along = as_local((params, tangent), axis_name)
            samples = directional_derivatives(value_fn, point, along, 2, mode)
            belief = _summarize(jnp.stack(samples, axis=-1), axis_name)
            return belief, DIFFERENTIATIONS.index(mode)
        except NoDerivativeError:
            if differentiation != "auto":
                raise
    belief = _observe_by_differences(value_fn, params, tangent, axis_name)
    return belief, DIFFERENTIATIONS.index("differences")


def _observe_by_differences(
    value_fn: ValueFn, params: PyTree, tangent: PyTree, axis_name: AxisName | None
) -> LineBelief:
    """Means from gradients at θ ± εv, which round less; variances from the losses there."""
    step = difference_step(params, tangent, 1 / 3)
    points = [shifted(params, tangent, sign * step) for sign in (1.0, -1.0)]
    losses = per_example_losses(value_fn)
    ahead, here, back = (widen(losses(p)) for p in (points[0], params, points[1]))
    slopes = 0.5 * (ahead - back) / step
    curvatures = (ahead - 2 * here + back) / jnp.square(step)
    belief = _summarize(jnp.stack((here, slopes, curvatures), axis=-1), axis_name)
    forth, back = (dot(mean_gradient(value_fn, p, axis_name), tangent) for p in points)
    return belief._replace(slope=0.5 * (forth + back), curvature=0.5 * (forth - back) / step)


def _summarize(samples: jax.Array, axis_name: AxisName | None) -> LineBelief:
    """Mean of (value, slope, curvature), shape (n, 3), and the covariance of that mean."""
    samples = widen(samples)
    count = samples.shape[0] * axis_size(axis_name)
    mean = jnp.mean(samples, axis=0)
    if axis_name is not None:
        mean = jax.lax.pmean(mean, axis_name)
    rest = samples - mean[None]
    scatter = jnp.einsum("ni,nj->ij", rest, rest, precision=jax.lax.Precision.HIGHEST)
    if axis_name is not None:
        scatter = jax.lax.psum(scatter, axis_name)
    variance = scatter / (count * max(count - 1, 1))
    return LineBelief(
        value=mean[0],
        value_variance=variance[0, 0],
        slope=mean[1],
        slope_variance=variance[1, 1],
        curvature=mean[2],
        curvature_variance=variance[2, 2],
        covariance=variance[1, 2],
    )
