"""Training steps by name: an optimizer, and what its `update` is given with the gradient.

The models are classifiers on random data: what a step costs does not depend on the values.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ...curvature import per_example
from ...optimizers import meka, metrics
from ..models import CNN, MLP, Transformer
from ..problem import PyTree
from ..registry import OPTIMIZERS
from ..solvers import integrate

_CLASSES, _TOKENS = 10, 64
_FIELD = nn.Sequential([nn.Dense(128), nn.tanh, nn.Dense(64)])


class Model(NamedTuple):
    """A module from inputs to logits, and the shape of an input."""

    module: nn.Module
    shape: tuple[int, ...]

    def init(self, key: jax.Array) -> PyTree:
        """Parameters."""
        return self.module.init(key, self.batch(1)["x"])

    def losses(self, params: PyTree, batch: PyTree) -> jax.Array:
        """The loss of every example, shape (n,); of a sequence, the mean over its tokens."""
        logits = cast(jax.Array, self.module.apply(params, batch["x"]))
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])
        return entropy if entropy.ndim == 1 else jnp.mean(entropy, axis=1)

    def loss(self, params: PyTree, example: PyTree) -> jax.Array:
        """The loss of a single example."""
        return self.losses(params, jax.tree.map(lambda leaf: leaf[None], example))[0]

    def batch(self, n: int) -> PyTree:
        """So many random examples, always the same."""
        for_x, for_y = jax.random.split(jax.random.key(1))
        if isinstance(self.module, Transformer):
            x, y = jax.random.randint(for_x, (2, n, *self.shape), 0, _TOKENS)
            return {"x": x, "y": y}
        x = jax.random.normal(for_x, (n, *self.shape))
        return {"x": x, "y": jax.random.randint(for_y, (n,), 0, _CLASSES)}

    def parameters(self) -> int:
        """Number of the parameters."""
        shapes = jax.eval_shape(self.init, jax.random.key(0))
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))


class _NeuralODE(nn.Module):
    """Digits as the state of an ODE in 64 dimensions, 8 Runge–Kutta steps; 17,000 parameters."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        params = self.param("field", _FIELD.init, x)
        end = integrate(lambda t, y: _FIELD.apply(params, y), x, 0.0, 1.0, steps=8)
        return nn.Dense(_CLASSES)(end)


def mlp(width: int) -> Model:
    """Two hidden layers.

    Example:
      >>> mlp(256).parameters(), mlp(12).parameters()
      (269322, 9706)
    """
    return Model(MLP(widths=(width, width), classes=_CLASSES), (28, 28))


MODELS = {
    "mlp": mlp(256),
    "cnn": Model(CNN(widths=(16, 32, 64), classes=_CLASSES), (32, 32, 3)),
    "transformer": Model(Transformer(tokens=_TOKENS, width=64, heads=2), (32,)),
    "neural ODE": Model(_NeuralODE(), (64,)),
}

Carry = tuple[PyTree, PyTree, jax.Array]  # parameters, state, and a number read off the state
# From model, batch and carry: the gradient, and the other arguments of `update`.
Arguments = Callable[[Model, PyTree, Carry], tuple[PyTree, dict[str, Any]]]


class Step(NamedTuple):
    """A way to train: the optimizer, its arguments, and what to read off its state each time."""

    tx: optax.GradientTransformation
    arguments: Arguments
    read: Callable[[PyTree], jax.Array] | None = None

    def start(self, model: Model) -> Carry:
        """What the first step begins with."""
        params = model.init(jax.random.key(0))
        return params, self.tx.init(params), jnp.zeros(())

    def make(self, model: Model, carry: Carry, batch: PyTree) -> Carry:
        """Make one step."""
        params, state, number = carry
        grads, arguments = self.arguments(model, batch, carry)
        tx = optax.with_extra_args_support(self.tx)
        updates, state = tx.update(grads, state, params, **arguments)
        if self.read is not None:
            number = self.read(state)
        return optax.apply_updates(params, updates), state, number


def _given(chunk_size: int | None = None, **what: str) -> Arguments:
    """Arguments by name, each of those available."""

    def arguments(model: Model, batch: PyTree, carry: Carry) -> tuple[PyTree, Any]:
        def loss(p: PyTree) -> jax.Array:
            return jnp.mean(model.losses(p, batch))

        value, grad = jax.value_and_grad(loss)(carry[0])
        available = {
            "value": value,
            "grad": grad,
            "losses": lambda p: model.losses(p, batch),
            "losses of known examples": per_example(model.loss, batch, chunk_size=chunk_size),
            "mean": loss,
            "gradient of the mean": lambda p, i: jax.grad(loss)(p),
        }
        return grad, {name: available[key] for name, key in what.items()}

    return arguments


def _update_alone(model: Model, batch: PyTree, carry: Carry) -> tuple[PyTree, Any]:
    """A gradient that is there already, and a loss that costs nothing."""
    params, _, number = carry
    # The gradient depends on the parameters, or the compiler computes it once for all steps; and
    # it comes out of a branch, or the compiler fuses it with what reads it.
    grads = jax.lax.cond(
        number < 1, lambda: jax.tree.map(lambda p: 0.1 * p + 0.01, params), lambda: params
    )
    ones = jnp.ones(batch["y"].shape[0])
    return grads, {"value_fn": lambda p: ones * jax.tree.leaves(p)[0].reshape(-1)[0]}


def _statistics_alone(model: Model, batch: PyTree, carry: Carry) -> tuple[PyTree, Any]:
    """Variances of every example's gradient and Hessian-vector product, all in memory at once."""
    params = carry[0]
    direction = jax.tree.map(jnp.ones_like, params)

    def observe(example: PyTree) -> PyTree:
        return jax.jvp(jax.grad(lambda p: model.loss(p, example)), (params,), (direction,))

    variances = jax.tree.map(lambda x: jnp.sum(jnp.var(x, axis=0)), jax.vmap(observe)(batch))
    # Something has to depend on them, or they are not computed; it changes no parameter.
    total = 1e-30 * optax.tree.sum(variances)
    return jax.tree.map(lambda p: jnp.full_like(p, total), params), {}


def _sum_of_metrics(state: PyTree) -> jax.Array:
    known = metrics(state)
    return jnp.stack([jnp.float32(known[name]) for name in sorted(known)]).sum()


def _registered(name: str) -> optax.GradientTransformationExtraArgs:
    return OPTIMIZERS[name].build({}, 1)


_LOSSES = _given(value_fn="losses")
_SAM = optax.contrib.sam(
    optax.adam(1e-3), optax.chain(optax.contrib.normalize(), optax.sgd(0.05)), opaque_mode=True
)
_LINE_SEARCH = optax.chain(
    optax.sgd(1.0), optax.scale_by_backtracking_linesearch(max_backtracking_steps=10)
)
# The registry's Adam has a schedule, which costs something: no reference to compare with.
_ADAM, _ADAMEKA, _EXACT = optax.adam(1e-3), _registered("adameka"), meka(statistics="exact")

TRAINING = {
    "adam": Step(_ADAM, _LOSSES),
    "sgd": Step(optax.sgd(1e-2), _LOSSES),
    "adameka": Step(_ADAMEKA, _LOSSES),
    "meka": Step(_registered("meka"), _LOSSES),
    "adameka, metrics read": Step(_ADAMEKA, _LOSSES, _sum_of_metrics),
    "adameka, value given": Step(_ADAMEKA, _given(value_fn="losses", value="value")),
    "adameka, measured at every step": Step(_registered("adameka-interval-1"), _LOSSES),
    **{
        f"{name}, grad given": Step(_registered(name), _given(value_fn="losses", grad="grad"))
        for name in ("ei-adam", "ei-momentum", "ei-lion", "ei-muon")
    },
    "sophia": Step(optax.contrib.sophia(1e-3), _given(obj_fn="mean")),
    "sam": Step(_SAM, _given(grad_fn="gradient of the mean")),
    "line search": Step(_LINE_SEARCH, _given(value_fn="mean", value="value", grad="grad")),
}
_KNOWN = "losses of known examples"
STEPS = TRAINING | {
    "adam, update alone": Step(_ADAM, _update_alone),
    "adameka, update alone": Step(_ADAMEKA, _update_alone),
    "vmap(jvp(grad)), no step": Step(optax.identity(), _statistics_alone),
    "meka, exact": Step(_EXACT, _given(value_fn=_KNOWN)),
    **{
        f"meka, exact, chunks of {n}": Step(_EXACT, _given(n, value_fn=_KNOWN))
        for n in (8, 32, 128, 512)
    },
}
