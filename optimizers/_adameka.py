from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from ..curvature import AxisName, Differentiation
from ..curvature._tree import PyTree, all_finite, widen, zeros_like
from ..curvature._validation import check_params
from ._acquisition import Acquisition, AcquisitionName
from ._arguments import require_gradient, require_value_fn
from ._expected_improvement import CURVATURE_INTERVAL, scale_by_expected_improvement
from ._mask import masked
from ._trust_region import TrustRegion

# Far below Adam's own ε² and so without effect, but for gradients of a training: the derivative of
# a root at 0 is not finite.
_EPSILON_ROOT = 1e-30


def adameka(
    acquisition: AcquisitionName | Acquisition | None = None,
    trust_region: TrustRegion | None = None,
    max_step_size: jax.typing.ArrayLike | None = None,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
    curvature_interval: int = CURVATURE_INTERVAL,
    differentiation: Differentiation = "auto",
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Self-tuning descent on the direction of Adam: the best default for neural networks.

        m ← β₁ m + (1 − β₁) g,    v ← β₂ v + (1 − β₂) g²,    d = −m̂ / (√v̂ + ε) − λ θ
        θ ← θ + τ d

    That is `optax.chain(scale_by_adam(), add_decayed_weights(λ), scale_by_expected_improvement())`
    with the gradient handed on as `grad=`, and two differences: the averages are kept in float32 or
    wider whatever the parameters are, and entries of the gradient that are not finite leave
    their own as they were.

    The publication's direction, the filtered gradient m / (√(m² + P) + ε), gives coordinates that
    never see a gradient the same weight as all others, and its transport removes what momentum
    accelerates: on networks the plain average of gradients trains faster. `meka` has the filter.

    Args:
      acquisition: see `scale_by_expected_improvement`.
      trust_region: see there.
      max_step_size: cap on α/‖d‖, which multiplies the scaled direction.
      weight_decay: λ of decoupled weight decay, multiplied by our own step as AdamW multiplies it
        by its learning rate; None for none.
      mask: prefix of the parameters with boolean leaves, or a function from parameters to one;
        leaves where it is False are held fixed. None trains all.
      curvature_interval: see `scale_by_expected_improvement`.
      differentiation: see there.
      axis_name: see there.

    Returns:
      A transformation whose `update` needs `params` and `value_fn`, a function from parameters to
      the per-example losses of the current batch, shape (n,), or to a scalar (shows no noise). Its
      updates are final: apply them as they are. `metrics(state)` reads what it knows. Where the
      gradient was clipped or penalized on its way, pass the raw one as `grad=`.

    Raises:
      ValueError, TypeError: as `scale_by_expected_improvement`.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from mekax.optimizers import adameka
      >>> tx = adameka()
      >>> params = jnp.array([1.0, -1.0])
      >>> state = tx.init(params)
      >>> value_fn = lambda w: jnp.sum(jnp.array([1.0, 100.0]) * w**2)
      >>> @jax.jit
      ... def step(params, state):
      ...     grads = jax.grad(value_fn)(params)
      ...     updates, state = tx.update(grads, state, params, value_fn=value_fn)
      ...     return optax.apply_updates(params, updates), state
      >>> for _ in range(200):
      ...     params, state = step(params, state)
      >>> bool(value_fn(params) < 1e-3)
      True

    Source: Chen et al. (2020), arXiv 2011.04803, for AdaMEKA; Kingma & Ba (2015) for the scaling;
    Loshchilov & Hutter (2019), arXiv 1711.05101, for decoupled weight decay.
    """
    decay = [] if weight_decay is None else [optax.add_decayed_weights(weight_decay)]
    rule = scale_by_expected_improvement(
        acquisition, trust_region, max_step_size, curvature_interval, differentiation, axis_name
    )
    chain = optax.chain(_scale_by_adam(), *decay, rule)

    def update_fn(updates, state, params=None, *, value_fn=None, grad=None, **extra_args):
        require_value_fn("adameka", params, value_fn)
        require_gradient("adameka", updates, params, complex_too=True)
        grad = updates if grad is None else grad
        return chain.update(updates, state, params, value_fn=value_fn, grad=grad, **extra_args)

    return masked(optax.GradientTransformationExtraArgs(chain.init, update_fn), mask)


def _scale_by_adam() -> optax.GradientTransformation:
    """`optax.scale_by_adam` in float32 or wider; a NaN leaves averages alone."""
    adam = optax.scale_by_adam(eps_root=_EPSILON_ROOT)

    def init_fn(params: PyTree) -> Any:
        check_params(params, complex_too=True)
        return adam.init(zeros_like(params, wide=True))

    def update_fn(updates, state, params=None):
        del params
        direction, new = cast(tuple[Any, Any], adam.update(widen(updates), state))
        # For each entry, so that averages are written where they are, as fast as Adam's own.
        finite = jax.tree.map(jnp.isfinite, new.nu)
        return direction, optax.ScaleByAdamState(
            count=jnp.where(all_finite(updates), new.count, state.count),
            mu=jax.tree.map(jnp.where, finite, new.mu, state.mu),
            nu=jax.tree.map(jnp.where, finite, new.nu, state.nu),
        )

    return optax.GradientTransformation(init_fn, update_fn)
