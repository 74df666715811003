from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from ._trees import PyTree, dot, widen

Differentiation = Literal["forward", "reverse", "differences"]
DIFFERENTIATIONS: tuple[str, ...] = get_args(Differentiation)


def check_differentiation(differentiation: str) -> None:
    """Raise a `ValueError` that lists the modes if `differentiation` is none of them."""
    if differentiation not in DIFFERENTIATIONS:
        raise ValueError(
            f"mekax: differentiation must be one of {', '.join(map(repr, DIFFERENTIATIONS))}, got "
            f"{differentiation!r}. 'forward' is right for all models that allow it."
        )


def push_forward(
    function: Callable[[PyTree], Any],
    point: PyTree,
    tangent: PyTree,
    differentiation: Differentiation = "forward",
) -> tuple[Any, Any]:
    """Value of a function and its directional derivative J(x) v, by the chosen means.

    | mode          | how                                      | needs                         |
    |---------------|------------------------------------------|-------------------------------|
    | "forward"     | `jax.jvp`                                | forward-mode rules            |
    | "reverse"     | gradient of u ↦ (Jᵀu)·v, for any u       | backward passes that can be   |
    |               |                                          | differentiated backward again |
    | "differences" | (f(x + εv) − f(x − εv)) / 2ε             | values alone                  |

    Nested twice, these are forward-over-forward, reverse-over-reverse and second differences; over
    a gradient, the first costs least. The differences step over ε = eps^¼ · max(‖x‖, 1)/‖v‖, which
    balances truncation and rounding of second differences: in float32 expect about two correct
    digits.

    Args:
      function: from a pytree of floating-point arrays to one.
      point: x.
      tangent: v, a pytree like `point`, of the same dtypes.
      differentiation: `"forward"`, `"reverse"` or `"differences"`.

    Returns:
      `(f(x), J(x) v)`.

    Raises:
      TypeError: where forward mode meets a primitive without a forward rule; the message names
        the other modes.
    """
    if differentiation == "forward":
        try:
            return jax.jvp(function, (point,), (tangent,))
        except (TypeError, NotImplementedError) as error:
            if not _lacks_forward_rule(error):
                raise
            raise TypeError(
                "mekax: expected a value_fn that forward-mode differentiation can pass through, "
                "but part of it has no forward-mode rule (a custom_vjp function, a fused kernel, "
                "an ODE adjoint that only runs backward). Pass differentiation='reverse' if its "
                "backward pass can be differentiated again, else differentiation='differences'. "
                f"JAX said: {error}"
            ) from error
    if differentiation == "reverse":
        value, pull_back = jax.vjp(function, point)
        zeros = jax.tree.map(jnp.zeros_like, value)
        _, push = jax.vjp(lambda cotangent: pull_back(cotangent)[0], zeros)
        return value, push(tangent)[0]
    return _central_difference(function, point, tangent)


def _central_difference(function, point, tangent):
    limits = jnp.finfo(jnp.result_type(*jax.tree.leaves(point)))
    length = jnp.sqrt(dot(tangent, tangent))
    scale = jnp.maximum(jnp.sqrt(dot(point, point)), 1.0)
    step = limits.eps**0.25 * scale / jnp.where(length > 0, length, 1)

    def shifted(sign: float) -> PyTree:
        return jax.tree.map(
            lambda x, v: (widen(x) + sign * step * widen(v)).astype(x.dtype), point, tangent
        )

    difference = jax.tree.map(
        lambda a, b: (0.5 * (widen(a) - widen(b)) / step).astype(a.dtype),
        function(shifted(1.0)),
        function(shifted(-1.0)),
    )
    return function(point), difference


def _lacks_forward_rule(error: Exception) -> bool:
    text = str(error)
    return "forward-mode" in text or "Differentiation rule" in text or "JVP rule" in text
