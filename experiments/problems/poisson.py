"""An equation as a loss: the Poisson problem in one dimension, solved by a network.

    −u″ = f on (−1, 1),    u(±1) = 0,    f(x) = (2π)² sin 2πx,    so that u(x) = sin 2πx

    ℓ(θ, x) = (u_θ″(x) + f(x))² / mean f²,    u_θ(x) = (1 − x²) f_θ(x)

The loss holds second derivatives of the network, so that its own Hessian is one of fourth order,
and it is badly conditioned: the equation weighs an error of u by the square of its frequency.

M. Raissi, P. Perdikaris and G. E. Karniadakis, *Physics-Informed Neural Networks* (2019), J.
Comput. Phys. 378; the boundary values are built in, as by I. E. Lagaris, A. Likas and
D. I. Fotiadis (1998), arXiv:physics/9705023.
"""

from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from ..models import SmoothMLP
from ..problem import Problem, PyTree, Source
from .common import deterministic, in_precision_of

POINTS = 512
_FREQUENCY = 2 * np.pi


def interval(name: str, source: Source) -> Problem:
    """Make the problem; u = 0 has loss 1. Measured is |u_θ − u| as well."""
    del source  # the data are computed
    module = SmoothMLP((24, 24), 1)

    def solution(params: PyTree, x: jax.Array) -> jax.Array:
        return (1 - x**2) * cast(jax.Array, module.apply(params, x[None]))[0]

    def residual(params: PyTree, x: jax.Array) -> jax.Array:
        def slope(x: jax.Array) -> jax.Array:
            return jax.jvp(lambda x: solution(params, x), (x,), (jnp.ones_like(x),))[1]

        curvature = jax.jvp(slope, (x,), (jnp.ones_like(x),))[1]
        return curvature / _FREQUENCY**2 + jnp.sin(_FREQUENCY * x)

    def errors(params: PyTree, batch: PyTree) -> jax.Array:
        x = in_precision_of(params, batch["x"])
        return 2 * jnp.square(jax.vmap(residual, (None, 0))(params, x))

    def measure(params: PyTree, batch: PyTree) -> dict[str, jax.Array]:
        x = in_precision_of(params, batch["x"])
        off = jax.vmap(solution, (None, 0))(params, x) - jnp.sin(_FREQUENCY * x)
        return {"loss": errors(params, batch), "error": jnp.abs(off)}

    loss, losses = deterministic(errors)
    x = np.linspace(-1, 1, POINTS)
    return Problem(
        name=name,
        init=lambda key: module.init(key, jnp.zeros(1)),
        loss=loss,
        losses=losses,
        measure=measure,
        data={"x": jnp.asarray(x, jnp.float32)},
        test={"x": jnp.asarray((x[1:] + x[:-1]) / 2, jnp.float32)},
        batch_size=64,
        epochs=75,
    )
