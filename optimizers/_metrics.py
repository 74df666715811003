from typing import Any

import jax


def metrics(state: Any) -> dict[str, jax.Array]:
    """Read what the optimizer knows out of its state, however deep it is nested.

    Works on the state of any transformation that contains one of ours, under `jit` as well;
    costs a few scalar operations and a norm. Keys, by what is present:

    | key                | meaning                                                             |
    |--------------------|---------------------------------------------------------------------|
    | `step_size`        | α/‖d‖ of the last step: updates = −step size · direction            |
    | `step_size_std`    | √Var(s + α h)/|h| in these units: how far off the line's minimum is |
    | `slope`            | s = v·∇f believed along the unit direction, negative is descent     |
    | `slope_std`        | its standard deviation                                              |
    | `curvature`        | h = v·∇²f v along the unit direction                                |
    | `curvature_std`    | its standard deviation                                              |
    | `direction_norm`   | ‖d‖ of the direction as given                                       |
    | `snr`              | slope² over its variance                                            |
    | `radius`           | τ: the step size that the trust region has learned                  |
    | `slope_ratio`      | part of the predicted slope that fresh batches confirm, smoothed    |
    | `loss_mean`        | u, filtered loss of the objective                                   |
    | `loss_std`         | √s, its standard deviation                                          |
    | `predicted_change` | mean change of the loss that the last step promises                 |
    | `realized_change`  | change of the filtered loss over the step before, as seen by now    |
    | `average_gap`      | D: loss at shorter averages less that at a long one, averaged       |
    | `iterate_gap`      | E: loss at the iterate less that at an average, averaged            |
    | `num_adaptations`  | steps that the trust region has learned from, less those of others  |
    | `num_rejected`     | batches at which something was not finite, whatever was done then   |
    | `outcome`          | what became of the step before, or of this batch: an `Outcome`      |
    | `gradient_mismatch`| relative deviation of the gradient's slope from that of `value_fn`  |
    | `differentiation`  | 1 forward mode, 2 reverse over reverse, 3 differences; 0 before any |
    | `gain`             | K, averaged over the parameters: weight of the newest gradient      |
    | `gradient_snr`     | ‖m‖² / tr P                                                         |
    | `phase`            | 0 in the fixed phase of `warm_start`, 1 when adaptive               |

    A `gradient_mismatch` above 0.1 says that the gradient is not that of the mean of `value_fn`'s
    losses: of their sum, clipped, penalized, of another batch, or with the wrong sign.

    Args:
      state: optimizer state, a pytree; also that of `optax.chain`, `inject_hyperparams`, ….

    Returns:
      Scalars by name; empty if the state holds none of our transformations. A variance of 0
      makes a ratio very large, never infinite.

    Example:
      >>> import jax.numpy as jnp
      >>> from mekax.optimizers import meka, metrics
      >>> params, value_fn = jnp.array([2.0]), lambda w: jnp.sum(w**2)
      >>> tx = meka()
      >>> _, state = tx.update(2 * params, tx.init(params), params, value_fn=value_fn)
      >>> round(float(metrics(state)["step_size"]), 2), float(metrics(state)["curvature"])
      (0.2, 2.0)
    """
    return _read(_knowing(state))


def _knowing(state: Any) -> list[Any]:
    """States within a state that have metrics."""
    found, nodes = [], [state]
    while nodes:
        node = nodes.pop()
        if hasattr(node, "metrics"):
            found.append(node)
        if isinstance(node, dict):
            nodes += node.values()
        elif isinstance(node, (tuple, list)):
            nodes += node
    return found


@jax.jit  # one program, because a loop that reads them outside of its own waits for each operation
def _read(states: list[Any]) -> dict[str, jax.Array]:
    found: dict[str, jax.Array] = {}
    for state in states:
        found |= state.metrics()
    return found
