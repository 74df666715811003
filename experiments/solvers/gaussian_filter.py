"""A Gaussian filter as a solver: a normal distribution of the solution in place of a number.

The prior has a Brownian motion of deviation s for the slope, y″ = s dW/dt, and is conditioned on
y′ = f(t, y) at the end of every step. A step begins with the slope that the equation gives, so that
the belief is about y alone, and f may jump from one step to the next.

A solver of our own, because its derivatives have to be right. The library for this, probdiffeq
0.9.2, holds the orthogonal factor of its QR decompositions constant when it differentiates, so that
derivatives of a likelihood are not those of its values.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .runge_kutta import Field


class Belief(NamedTuple):
    """A normal distribution.

    Attributes:
      mean: shape (d,).
      covariance: shape (d, d).
    """

    mean: jax.Array
    covariance: jax.Array


def filter_step(
    field: Field, belief: Belief, t: jax.Array, dt: jax.Array, deviation: jax.Array
) -> Belief:
    """What is known of the solution at t + dt, from what is known at t.

        y(t + dt) = y + dt y′ + w₀,  y′(t + dt) = y′ + w₁,  Cov w = s² (dt³/3, dt²/2; dt²/2, dt)

    with y′ = f(t, y), given that y′(t + dt) = f(t + dt, y(t + dt)), f being linearized about the
    mean (EK1). Known values move as by the trapezoidal rule, implicit for stiff equations; the
    variance grows by s² dt³/12. Where dt is 0 nothing changes.

    Args:
      field: `(t, y) -> dy/dt`.
      belief: at t.
      t: time, shape ().
      dt: length of the step, shape (), at least 0.
      deviation: s, of the slope after unit time, shape (d,).

    Returns:
      The belief at t + dt.

    Example:
      >>> start = Belief(jnp.ones(1), jnp.zeros((1, 1)))
      >>> end = filter_step(lambda t, y: -y, start, 0.0, jnp.asarray(0.1), jnp.ones(1))
      >>> print(f"{end.mean[0]:.4f} ± {end.covariance[0, 0] ** 0.5:.4f}, exact {jnp.exp(-0.1):.4f}")
      0.9048 ± 0.0087, exact 0.9048

    Source: F. Tronarp, H. Kersting, S. Särkkä and P. Hennig, *Probabilistic Solutions to Ordinary
    Differential Equations as Nonlinear Bayesian Filtering* (2019), arXiv:1810.03440, section 2.
    """
    safe = jnp.where(dt > 0, dt, 1)
    mean, one = belief.mean, jnp.eye(len(belief.mean), dtype=belief.mean.dtype)
    slope, jacobian = field(t, mean), jax.jacfwd(lambda y: field(t, y))(mean)
    moved = mean + safe * slope
    later = jax.jacfwd(lambda y: field(t + safe, y))(moved)
    # w₀ and w₁ by independent noises, and what the equation leaves of them at the end of the step.
    place, old, new = safe**1.5 / 3**0.5, safe**0.5 * 3**0.5 / 2, safe**0.5 / 2
    noise = (place * one * deviation, 0 * one)
    residual_noise = ((old * one - place * later) * deviation, new * one * deviation)
    carried = one + safe * jacobian
    residual = jacobian - later @ carried
    within = residual @ belief.covariance @ residual.T + sum(n @ n.T for n in residual_noise)
    across = carried @ belief.covariance @ residual.T
    across += sum(n @ m.T for n, m in zip(noise, residual_noise, strict=True))
    gain = jnp.linalg.solve(within, across.T).T
    # A sum of squares, which stays positive semidefinite in whatever precision.
    kept = carried - gain @ residual
    left = [n - gain @ m for n, m in zip(noise, residual_noise, strict=True)]
    found = Belief(
        moved - gain @ (slope - field(t + safe, moved)),
        kept @ belief.covariance @ kept.T + sum(n @ n.T for n in left),
    )
    return jax.tree.map(lambda after, before: jnp.where(dt > 0, after, before), found, belief)


def observe(belief: Belief, row: jax.Array, value: jax.Array, variance: jax.Array) -> Belief:
    """What is known of y after row · y has been seen as `value`, with noise of that variance.

    Args:
      belief: before.
      row: shape (d,).
      value: shape ().
      variance: shape (), above 0.

    Example:
      >>> before = Belief(jnp.zeros(1), jnp.eye(1))
      >>> after = observe(before, jnp.ones(1), 1.0, 1.0)
      >>> print(after.mean, after.covariance)
      [0.5] [[0.5]]

    Source: R. E. Kalman (1960), in the form of Joseph.
    """
    across = belief.covariance @ row
    gain = across / (row @ across + variance)
    kept = jnp.eye(len(row), dtype=across.dtype) - jnp.outer(gain, row)
    return Belief(
        belief.mean + gain * (value - row @ belief.mean),
        kept @ belief.covariance @ kept.T + variance * jnp.outer(gain, gain),
    )
