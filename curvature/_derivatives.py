"""Derivatives along a direction, by whatever means a model allows.

| mode          | J(x) v is                                    | needs                             |
|---------------|----------------------------------------------|-----------------------------------|
| "forward"     | `jax.jvp`                                    | forward-mode rules                |
| "reverse"     | gradient of u ↦ (Jᵀu)·v, for any u           | backward passes that can be       |
|               |                                              | differentiated backward again     |
| "differences" | (f(x + εv) − f(x − εv)) / 2ε                 | values alone                      |
| "auto"        | forward where it can be traced, differences where not                            |
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import optax

from ._mapped_axis import AxisName, as_local, mean_over_axis
from ._tree import PyTree, coarsest, norm, widen
from ._validation import ValueFn, per_example_losses

Differentiation = Literal["auto", "forward", "reverse", "differences"]
Mode = Literal["forward", "reverse", "differences"]  # what "auto" is found to be
DIFFERENTIATIONS: tuple[str, ...] = get_args(Differentiation)


class NoDerivativeError(TypeError):
    """A model cannot be differentiated by the chosen means; the message names the others."""


def check_differentiation(differentiation: str) -> None:
    """Raise a `ValueError` that lists the modes if `differentiation` is none of them."""
    if differentiation not in DIFFERENTIATIONS:
        raise ValueError(
            f"mekax: differentiation must be one of {', '.join(map(repr, DIFFERENTIATIONS))}, got "
            f"{differentiation!r}. 'auto' is right for all models."
        )


def resolve(
    value_fn: ValueFn, params: PyTree, tangent: PyTree, differentiation: Differentiation
) -> Mode:
    """Decide what "auto" is: forward mode if the losses can be traced to their second derivative.

    A single `jax.jvp` of a custom_vjp function fails when the program is lowered, not while it is
    traced; a nested one fails at once.
    """
    check_differentiation(differentiation)
    if differentiation != "auto":
        return differentiation
    losses = per_example_losses(value_fn)

    def along(function: Callable[[PyTree], Any]) -> Callable[[PyTree], Any]:
        return lambda point: jax.jvp(function, (point,), (tangent,))[1]

    try:
        jax.eval_shape(along(along(losses)), params)
    except Exception:
        # What is wrong with the losses themselves is told in their own words.
        jax.eval_shape(losses, params)
        return "differences"
    return "forward"


def push_forward(
    function: Callable[[PyTree], Any],
    point: PyTree,
    tangent: PyTree,
    differentiation: Mode = "forward",
) -> tuple[Any, Any]:
    """Value of a function and its directional derivative J(x) v, by the chosen means.

    Nested twice, the modes are forward-over-forward, reverse-over-reverse and second differences;
    over a gradient, the first costs least. The differences step over ε = eps^¼ · max(‖x‖, 1)/‖v‖,
    which balances truncation and rounding of second differences: in float32 expect about two
    correct digits.

    Args:
      function: from a pytree of floating-point arrays to one.
      point: x.
      tangent: v, a pytree like `point`, of the same dtypes.
      differentiation: `"forward"`, `"reverse"` or `"differences"`.

    Returns:
      `(f(x), J(x) v)`.

    Raises:
      TypeError: where the chosen mode meets a primitive without a rule; the message names the
        other modes.
    """
    if differentiation == "differences":
        return _central_difference(function, point, tangent)
    try:
        if differentiation == "reverse":
            return _reverse_over_reverse(function, point, tangent)
        return jax.jvp(function, (point,), (tangent,))
    except NoDerivativeError:
        raise
    except Exception as error:
        # What is wrong with the function itself is told in the function's own words.
        jax.eval_shape(function, point)
        raise NoDerivativeError(
            "mekax: expected a value_fn that can be differentiated as asked, got one without a "
            f"rule for differentiation={differentiation!r} (a custom_vjp function, a callback, a "
            "fused kernel, an ODE adjoint that only runs backward). Leave it out, or pass "
            f"differentiation='differences'. JAX said: {error}"
        ) from error


def _reverse_over_reverse(function, point, tangent):
    value, pull_back = jax.vjp(function, point)
    zeros = jax.tree.map(jnp.zeros_like, value)
    _, push = jax.vjp(lambda cotangent: pull_back(cotangent)[0], zeros)
    return value, push(tangent)[0]


def _central_difference(function, point, tangent):
    step = difference_step(point, tangent, 0.25)
    difference = jax.tree.map(
        lambda a, b: (0.5 * (widen(a) - widen(b)) / step).astype(a.dtype),
        function(shifted(point, tangent, step)),
        function(shifted(point, tangent, -step)),
    )
    return function(point), difference


def difference_step(point: PyTree, tangent: PyTree, power: float) -> jax.Array:
    """ε = eps^power · max(‖x‖, 1)/‖v‖ for differences between x ± εv."""
    length = norm(tangent)
    scale = jnp.maximum(norm(point), 1.0)
    return coarsest(point) ** power * scale / jnp.where(length > 0, length, 1)


def shifted(point: PyTree, tangent: PyTree, step: jax.Array) -> PyTree:
    """Move to x + εv, in the dtypes of x."""
    return jax.tree.map(lambda x, v: (widen(x) + step * widen(v)).astype(x.dtype), point, tangent)


def directional_derivatives(
    value_fn: ValueFn,
    params: PyTree,
    direction: PyTree,
    order: int = 2,
    differentiation: Differentiation = "auto",
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
      differentiation: `"auto"`: forward mode, or differences (of order 2 at most in float32) for
        models without a forward-mode rule; `"forward"`, `"reverse"`, `"differences"`.

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
    tangent = optax.tree.cast_like(direction, params)
    losses = per_example_losses(value_fn)
    mode = resolve(value_fn, params, tangent, differentiation)

    def derivatives(point: PyTree, order: int) -> tuple[jax.Array, ...]:
        if order == 0:
            return (losses(point),)
        # The derivatives up to order − 1 and their tangents overlap in all but the last.
        lower, raised = push_forward(lambda p: derivatives(p, order - 1), point, tangent, mode)
        return (*lower, raised[-1])

    return derivatives(params, order)


def mean_gradient(value_fn: ValueFn, params: PyTree, axis_name: AxisName | None = None) -> PyTree:
    """Mean gradient (1/n) Σ_i ∇ℓ_i(θ) of a batch, a pytree like `params`.

    Of complex parameters it is the conjugate of what `jax.grad` returns, against which the loss
    falls. XLA shares it with the gradient that the caller computes in the same program.
    """

    def mean_loss(point: PyTree) -> jax.Array:
        return jnp.mean(widen(per_example_losses(value_fn)(point)))

    gradient = jax.grad(mean_loss)(as_local(params, axis_name))
    return mean_over_axis(jax.tree.map(jnp.conj, gradient), axis_name)


def gradient_and_product(
    value_fn: ValueFn,
    params: PyTree,
    direction: PyTree,
    differentiation: Differentiation = "auto",
    axis_name: AxisName | None = None,
) -> tuple[PyTree, PyTree]:
    """Mean gradient and mean Hessian-vector product of a batch, by forward over reverse mode.

        g = (1/n) Σ_i ∇ℓ_i(θ),    Bv = (1/n) Σ_i ∇²ℓ_i(θ) v

    One pass costs about two gradients, and XLA shares the gradient with one that the caller
    computes in the same program.

    Args:
      value_fn: parameters to per-example losses, shape (n,), or to a scalar.
      params: θ, a pytree of floating-point arrays.
      direction: v, a pytree like `params`, in parameter units; cast to the dtypes of `params`.
      differentiation: of the gradient along v: `"auto"`: forward mode, or the difference of two
        gradients for models without a forward-mode rule; `"forward"`, `"reverse"` (reverse over
        reverse), `"differences"`.
      axis_name: mapped axis over which the batch is split into equal parts, or None.

    Returns:
      `(g, Bv)`, pytrees like `params`, in float32 or wider; loss / parameter and, for v in
      parameter units, loss / parameter too.

    Raises:
      ValueError, TypeError: if `value_fn` does not return losses of shape (n,) or a scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> g, Bv = gradient_and_product(lambda w: w**2, jnp.array([3.0]), jnp.array([1.0]))
      >>> g.tolist(), Bv.tolist()
      ([6.0], [2.0])

    Source: Pearlmutter (1994); Chen et al. (2020), arXiv 2011.04803, section 3.
    """
    tangent = optax.tree.cast_like(direction, params)
    params, tangent = as_local((params, tangent), axis_name)
    mode = resolve(value_fn, params, tangent, differentiation)
    both = push_forward(lambda p: mean_gradient(value_fn, p), params, tangent, mode)
    return mean_over_axis(widen(both), axis_name)


def hvp(
    value_fn: ValueFn,
    params: PyTree,
    direction: PyTree,
    differentiation: Differentiation = "auto",
    axis_name: AxisName | None = None,
) -> PyTree:
    """Mean Hessian-vector product Bv of a batch; see `gradient_and_product`.

    Example:
      >>> import jax.numpy as jnp
      >>> hvp(lambda w: w[0] * w[1], jnp.array([1.0, 2.0]), jnp.array([1.0, 0.0])).tolist()
      [0.0, 1.0]
    """
    return gradient_and_product(value_fn, params, direction, differentiation, axis_name)[1]
