"""The method of Euler and Maruyama, for paths of a stochastic differential equation."""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp

Drift = Callable[[jax.Array, Any], jax.Array]  # (y, control) -> dy/dt
Diffusion = Callable[[jax.Array], jax.Array]  # y -> deviation of each entry for unit time


def euler_maruyama(
    drift: Drift,
    diffusion: Diffusion,
    y0: jax.Array,
    dt: float,
    noise: jax.Array,
    controls: Any = None,
) -> jax.Array:
    """A path of dy = f(y) dt + g(y) dW in the sense of Itô, at times dt apart.

        yᵢ₊₁ = yᵢ + f(yᵢ, cᵢ) dt + g(yᵢ) √dt εᵢ

    The noise g is diagonal. Paths converge at order 1/2 in dt, at order 1 if g is constant, and
    expectations at order 1. With the noise given, everything differentiates, forward and backward
    and in any order. Solved by Diffrax: a step of training the latent SDE costs 1.23 times what
    it costs with a scan (`python -m mekax.experiments.problems.diffrax_cost latent-sde`).

    Args:
      drift: f, `(y, control) -> dy/dt`; what changes in time comes as a control.
      diffusion: g, `y -> (size,)`.
      y0: start, shape (size,).
      dt: length of a step.
      noise: ε, standard normal, shape (steps, size).
      controls: pytree of arrays with a leading axis of length steps; or None.

    Returns:
      The states, shape (steps + 1, size); the first is y0.

    Example:
      >>> noise = jnp.array([[1.0], [-1.0]])
      >>> path = euler_maruyama(lambda y, _: -y, lambda y: 2.0, jnp.ones(1), 0.25, noise)
      >>> print(path[:, 0])
      [1.     1.75   0.3125]

    Source: P. E. Kloeden and E. Platen, *Numerical Solution of Stochastic Differential Equations*
    (1992), equation 10.2.4; G. Maruyama (1955).
    """
    increments = dt**0.5 * noise

    def step(t: Any, y: Any, args: None) -> jax.Array:  # time counts steps: sums of dt are rounded
        index = t.astype(int)
        control = jax.tree.map(lambda leaf: leaf[index], controls)
        return drift(y, control) * dt + diffusion(y) * increments[index]

    start, end, one = jnp.array([0, len(noise), 1], y0.dtype)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(step),
        diffrax.Euler(),
        start,
        end,
        one,
        y0,
        saveat=diffrax.SaveAt(t0=True, steps=True),
        adjoint=diffrax.DirectAdjoint(),
        max_steps=len(noise),
        throw=False,
    )
    return jnp.asarray(solution.ys)
