"""Whether a solver can be differentiated twice, found out before anything long begins."""

import jax
import jax.numpy as jnp

from .runge_kutta import Integrate


def require_second_order(integrate: Integrate) -> None:
    """Make sure that a Hessian-vector product passes through a solver; nothing is computed.

    Args:
      integrate: `(field, y0, t0, t1) -> y(t1)`.

    Raises:
      ValueError: if it does not, with the reason that jax gives.

    Example:
      >>> require_second_order(lambda field, y0, t0, t1: y0 + (t1 - t0) * field(t0, y0))
    """

    def loss(rate: jax.Array) -> jax.Array:
        return integrate(lambda t, y: rate * y, jnp.ones(()), 0.0, 1.0)

    number = jax.ShapeDtypeStruct((), jnp.result_type(float))
    try:  # lowering, because tracing alone lets some of what cannot be differentiated pass
        jax.jit(lambda a: jax.jvp(jax.grad(loss), (a,), (a,))).lower(number)
    except Exception as error:
        raise ValueError(
            f"expected `integrate` to be a solver that can be differentiated twice, forward over "
            f"reverse, got {integrate}, which cannot: {str(error).rstrip('.')}. Use the default, "
            "or of Diffrax's adjoints DirectAdjoint, as solvers.integrate_adaptively does."
        ) from error
