from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..curvature._tree import PyTree, all_finite, widen, zeros_like

_SPAN = 10.0  # the average spans about the last count/10 iterates


class AverageState(NamedTuple):
    """State of `average_iterates`.

    Attributes:
      count: iterates averaged, int32.
      average: of the iterates, like the parameters in float32 or wider.
    """

    count: jax.Array
    average: PyTree


def average_weight(count: jax.Array, span: float) -> jax.Array:
    """Weight of the newest of `count + 1` iterates in an average over the last count/span."""
    return span / (count + span)


def average_iterates() -> optax.GradientTransformationExtraArgs:
    """Keep a moving average of the parameters to evaluate at: put it last in a chain.

        θ̄ ← θ̄ + 10/(k + 10) (θ + update − θ̄),    k = 0, 1, …

    A step size that is right for progress leaves the iterate scattered about the path by the noise
    of the last gradients; the average, over about the last tenth of all iterates, is on it. It does
    what a decaying learning rate does at the end of training, at any time and without knowing the
    end. Updates pass unchanged, so training is the same with and without.

    Returns:
      A transformation that needs `params`; read the average by `eval_params(state, params)`.

    Raises:
      ValueError: if `update` is called without `params`.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from mekax.optimizers import average_iterates, eval_params
      >>> tx = optax.chain(optax.sgd(1.0), average_iterates())
      >>> params = jnp.array([1.0])
      >>> state = tx.init(params)
      >>> for gradient in (jnp.array([2.0]), jnp.array([-2.0])):
      ...     updates, state = tx.update(gradient, state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> params.tolist(), [round(x, 3) for x in eval_params(state, params).tolist()]
      ([1.0], [0.818])

    Source: Polyak & Juditsky (1992) for averaging; Shamir & Zhang (2013), arXiv 1212.1824, section
    4, for these weights; Sandler et al. (2023), arXiv 2307.14833, for averages in place of decay.
    """

    def init_fn(params: PyTree) -> AverageState:
        return AverageState(jnp.zeros((), jnp.int32), zeros_like(params, wide=True))

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        if params is None:
            raise ValueError(
                "mekax: average_iterates expected params in update, got None. Call "
                "tx.update(grads, state, params, …)."
            )
        iterate = jax.tree.map(jnp.add, widen(params), widen(updates))
        rate = average_weight(state.count, _SPAN)
        average = jax.tree.map(lambda a, x: a + rate * (x - a), state.average, iterate)
        # A step that leads nowhere is left out: the average outlives what training does not.
        finite = all_finite(iterate)
        count = jnp.where(finite, jnp.asarray(optax.safe_increment(state.count)), state.count)
        return updates, AverageState(count, optax.tree.where(finite, average, state.average))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
