"""A contextual bandit: a policy that sees an image, chooses a digit, and learns its cost alone.

    a ~ π_θ(· | x),    cost c(a) = 0 for the digit that is shown, 1 for any other

    ℓ(θ, x) = b + (c(a) − b) π_θ(a | x) / π_θ̄(a | x),    θ̄ = θ

Nothing is differentiated through θ̄, whose policy draws the action by the key. So the value is the
cost of the action, gradient and Hessian are those of one and the same ratio, and all three are
right in expectation for the expected cost. What an example says changes with the policy that draws
its action, as everywhere in reinforcement learning. The baseline b, the expected cost of θ̄ as a
critic would tell it, takes noise away and no more.

R. J. Williams, *Simple Statistical Gradient-Following Algorithms* (1992); J. Foerster et al.,
*DiCE: The Infinitely Differentiable Monte-Carlo Estimator* (2018), arXiv:1802.05098.
"""

from typing import cast

import jax
import jax.numpy as jnp

from .. import data
from ..models import SmoothMLP
from ..problem import Problem, PyTree, Source, batched
from .classification import images_on_device
from .common import in_precision_of


def digits(name: str, source: Source) -> Problem:
    del source  # the data are built in
    return bandit(name, data.digits(), width=32, batch_size=64, epochs=60)


def bandit(
    name: str,
    dataset: data.Dataset,
    *,
    width: int,
    batch_size: int,
    epochs: int,
    drawn_by: PyTree | None = None,
) -> Problem:
    """Make the problem of learning a policy from the costs of its actions.

    Measured is the expected regret, exactly: 1 − π_θ(the digit that is shown | x); and the accuracy
    of the likeliest action.

    Args:
      name: of the problem.
      dataset: contexts, and the labels that cost nothing.
      width: of the hidden layer of the policy.
      batch_size: default batch size.
      epochs: default number of epochs.
      drawn_by: parameters of the policy that draws the actions, θ̄; by default those that learn.
    """
    module = SmoothMLP((width,), int(dataset.train.label.max()) + 1)
    pixels, scale = dataset.train.image[0].size, float(dataset.scale[0])

    def log_policy(params: PyTree, example: PyTree) -> jax.Array:
        x = in_precision_of(params, example["image"]).ravel() / scale
        return jax.nn.log_softmax(cast(jax.Array, module.apply(params, x)))

    def loss(params: PyTree, example: PyTree, key: jax.Array) -> jax.Array:
        log_pi = log_policy(params, example)
        log_drawn = log_pi if drawn_by is None else log_policy(drawn_by, example)
        return _surrogate(log_pi, jax.lax.stop_gradient(log_drawn), example["label"], key)

    def measure_one(params: PyTree, example: PyTree) -> dict[str, jax.Array]:
        log_pi, best = log_policy(params, example), example["label"]
        return {"loss": -jnp.expm1(log_pi[best]), "accuracy": jnp.argmax(log_pi) == best}

    return Problem(
        name=name,
        init=lambda key: module.init(key, jnp.zeros(pixels)),
        loss=loss,
        losses=batched(loss),
        measure=lambda params, batch: jax.vmap(measure_one, (None, 0))(params, batch),
        data=images_on_device(dataset.train),
        test=images_on_device(dataset.test),
        batch_size=batch_size,
        epochs=epochs,
    )


def _surrogate(
    log_pi: jax.Array, log_drawn: jax.Array, best: jax.Array, key: jax.Array
) -> jax.Array:
    """The loss of one context, b + (c(a) − b) π(a) / π̄(a), by logarithms of π and π̄."""
    action = jax.random.categorical(key, log_drawn)
    cost = (action != best).astype(log_pi.dtype)
    baseline = -jnp.expm1(log_drawn[best])
    return baseline + (cost - baseline) * jnp.exp(log_pi[action] - log_drawn[action])
