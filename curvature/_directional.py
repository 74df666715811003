from typing import NamedTuple

import jax
import jax.numpy as jnp

from ._mapped_axis import AxisName, as_local
from ._moments import mean_and_variance
from ._push_forward import Differentiation, push_forward
from ._trees import PyTree, cast_like, widen
from ._validation import ValueFn, per_example_losses


class DirectionalStatistics(NamedTuple):
    """Batch means, and variances of these means, along one direction v; all scalars.

    Attributes:
      value: mean loss y.
      value_variance: variance r of that mean.
      slope: g·v.
      slope_variance: Var_i(g_i·v)/n.
      curvature: v·Bv.
      curvature_variance: Var_i(v·H_i v)/n.
    """

    value: jax.Array
    value_variance: jax.Array
    slope: jax.Array
    slope_variance: jax.Array
    curvature: jax.Array
    curvature_variance: jax.Array


def directional_derivatives(
    value_fn: ValueFn,
    params: PyTree,
    direction: PyTree,
    order: int = 2,
    differentiation: Differentiation = "forward",
) -> tuple[jax.Array, ...]:
    """Derivatives of every example's loss along a direction, by nested forward mode.

        (ℓ_i(θ), d/dt ℓ_i(θ + t·v), d²/dt² ℓ_i(θ + t·v), …) at t = 0

    Order 1 gives the slope g_i·v, order 2 the curvature v·H_i v, order 3 the third derivative
    ∇³ℓ_i[v, v, v]. Memory is O(n) beyond one evaluation; nothing of size n·D is formed.

    Args:
      value_fn: parameters to per-example losses, shape (n,), or to a scalar.
      params: θ.
      direction: v, a pytree like `params`.
      order: highest derivative, at least 0.
      differentiation: `"forward"`, or, for models without a forward-mode rule, `"reverse"` or
        `"differences"` (of order 2 at most in float32).

    Returns:
      `order + 1` arrays of shape (n,), in the dtype of the losses, in loss / (unit of t)^k.

    Raises:
      ValueError, TypeError: if `value_fn` does not return losses of shape (n,) or a scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> cube = lambda w: w**3
      >>> [x.item() for x in directional_derivatives(cube, jnp.array([2.0]), jnp.array([1.0]), 3)]
      [8.0, 12.0, 12.0, 6.0]
    """
    tangent = cast_like(direction, params)
    losses = per_example_losses(value_fn)

    def derivatives(point: PyTree, order: int) -> tuple[jax.Array, ...]:
        if order == 0:
            return (losses(point),)
        # The derivatives up to order − 1 and their tangents overlap in all but the last.
        lower, raised = push_forward(
            lambda p: derivatives(p, order - 1), point, tangent, differentiation
        )
        return (*lower, raised[-1])

    return derivatives(params, order)


def directional(
    value_fn: ValueFn,
    params: PyTree,
    direction: PyTree,
    differentiation: Differentiation = "forward",
    axis_name: AxisName | None = None,
) -> DirectionalStatistics:
    """Value, slope and curvature of a batch along a direction, with their sampling variances.

    Args:
      value_fn: parameters to per-example losses, shape (n,), or to a scalar.
      params: θ.
      direction: v, a pytree like `params`.
      differentiation: see `directional_derivatives`.
      axis_name: mapped axis over which the batch is split, or None.

    Returns:
      `DirectionalStatistics`, scalars in float32 or wider.

    Raises:
      ValueError, TypeError: if `value_fn` does not return losses of shape (n,) or a scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> stats = directional(lambda w: (w - jnp.array([0.0, 2.0])) ** 2 / 2,
      ...                     jnp.array([1.0]), jnp.array([1.0]))
      >>> float(stats.slope), float(stats.slope_variance), float(stats.curvature)
      (0.0, 1.0, 1.0)
    """
    params, direction = as_local((params, cast_like(direction, params)), axis_name)
    samples = directional_derivatives(value_fn, params, direction, 2, differentiation)
    pairs = [mean_and_variance(widen(x), axis_name) for x in samples]
    return DirectionalStatistics(*(jnp.asarray(part) for pair in pairs for part in pair))


def batch_value(
    losses: jax.Array, axis_name: AxisName | None = None
) -> tuple[jax.Array, jax.Array]:
    """Mean loss of a batch and the variance of that mean, scalars in float32 or wider.

    Example:
      >>> import jax.numpy as jnp
      >>> [x.item() for x in batch_value(jnp.array([1.0, 3.0]))]
      [2.0, 1.0]
    """
    mean, variance = mean_and_variance(widen(losses), axis_name)
    return jnp.asarray(mean), jnp.asarray(variance)
