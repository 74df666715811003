"""ScheduleFree+, a peer without learning rate or schedule, from its publication."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

_EPSILON = 1e-8


class ScheduleFreePlusState(NamedTuple):
    """State of `schedule_free_plus`.

    Attributes:
      count: steps done, int32.
      x: average of the iterates, to evaluate at.
      z: the iterate that steps are added to.
      mu: Adam's average of gradients.
      nu: Adam's average of squared gradients.
      max_step: largest step size so far.
      weight_sum: sum of the weights of the average.
    """

    count: jax.Array
    x: optax.Params
    z: optax.Params
    mu: optax.Updates
    nu: optax.Updates
    max_step: jax.Array
    weight_sum: jax.Array


def schedule_free_plus(
    b1: float = 0.9, b2: float = 0.95, interpolation: float = 0.9
) -> optax.GradientTransformationExtraArgs:
    """Polyak's step size, measured at y and taken from z, with x the average of z.

        γ = max(0, f(y) + β ⟨g, z − x⟩) / (√(π/2) ‖g‖₁)
        z ← z − γ m̂/(√v̂ + ε),    x ← x + c (z − x),    y ← β x + (1 − β) z

    g = ∇f(y), m̂ and v̂ are Adam's averages, and c is the share of the squared largest step size so
    far in the sum of all of them. The loss is supposed to have its minimum at 0.

    Args:
      b1: decay of Adam's m.
      b2: decay of Adam's v.
      interpolation: β.

    Returns:
      A transformation whose parameters are y, and whose `update` needs `params` and `value`, the
      loss of the batch there. Evaluate at `state.x`.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> params, tx = jnp.array([1.0, -2.0]), schedule_free_plus()
      >>> state = tx.init(params)
      >>> loss = lambda w: jnp.sum(w**2)
      >>> @jax.jit
      ... def step(params, state):
      ...     value, grads = jax.value_and_grad(loss)(params)
      ...     updates, state = tx.update(grads, state, params, value=value)
      ...     return optax.apply_updates(params, updates), state
      >>> for _ in range(100):
      ...     params, state = step(params, state)
      >>> bool(loss(state.x) < 0.1)
      True

    Source: Defazio (2026), arXiv 2605.19095.
    """

    def init_fn(params: optax.Params) -> ScheduleFreePlusState:
        zero = jnp.zeros((), jnp.float32)
        zeros = optax.tree.zeros_like(params)
        return ScheduleFreePlusState(
            jnp.zeros((), jnp.int32), params, params, zeros, zeros, zero, zero
        )

    def update_fn(updates, state, params=None, *, value=None, **extra_args):
        del extra_args
        if params is None or value is None:
            raise ValueError(
                "mekax: schedule_free_plus expected params and value in update, got None. Call "
                "tx.update(grads, state, params, value=loss)."
            )
        count = state.count + 1
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        nu = optax.tree.update_moment(updates, state.nu, b2, 2)
        scaled = jax.tree.map(
            lambda m, v: m / (jnp.sqrt(v) + _EPSILON),
            optax.tree.bias_correction(mu, b1, count),
            optax.tree.bias_correction(nu, b2, count),
        )
        ahead = interpolation * optax.tree.vdot(updates, optax.tree.sub(state.z, state.x))
        norm = sum(jnp.sum(jnp.abs(g)) for g in jax.tree.leaves(updates)) * jnp.sqrt(jnp.pi / 2)
        step = jnp.maximum(value + ahead, 0) / jnp.where(norm > 0, norm, 1)
        max_step = jnp.maximum(state.max_step, step)
        weight_sum = state.weight_sum + jnp.square(max_step)
        share = jnp.square(max_step) / jnp.where(weight_sum > 0, weight_sum, 1)

        z = jax.tree.map(lambda z, s: z - step * s, state.z, scaled)
        x = jax.tree.map(lambda x, z: x + share * (z - x), state.x, z)
        y = jax.tree.map(lambda x, z: z + interpolation * (x - z), x, z)
        new = ScheduleFreePlusState(count, x, z, mu, nu, max_step, weight_sum)
        return optax.tree.sub(y, params), new

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
