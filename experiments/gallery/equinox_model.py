"""How the gallery's programs in Equinox begin, how those that classify step, and what is judged."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import optax

from ..problem import PyTree


def arrays(model: Any) -> PyTree:
    """The parameters of a model; everything else is None."""
    return eqx.filter(model, eqx.is_inexact_array)


def begin(make: Callable[[jax.Array], Any]) -> Callable[[Any, jax.Array], tuple[Any, PyTree]]:
    """The `start` of programs that carry a model and the state of its optimizer."""
    make = eqx.filter_jit(make)

    def start(tx: Any, key: jax.Array) -> tuple[Any, PyTree]:
        model = make(key)
        return model, tx.init(arrays(model))

    return start


def parts(carry: tuple[Any, PyTree]) -> tuple[PyTree, PyTree]:
    """Parameters and state of what such programs carry."""
    return arrays(carry[0]), carry[1]


# A step of a classifier in two classes, as in the public programs, and with `adameka`. Their lines
# are compared, and so they have no words of their own.
def theirs(tx, carry, batch):
    model, state = carry
    x, label = batch

    def loss_fn(model):
        return optax.sigmoid_binary_cross_entropy(jax.vmap(model)(x), label).mean()

    loss, grads = eqx.filter_value_and_grad(loss_fn)(model)
    updates, state = tx.update(grads, state)
    return (eqx.apply_updates(model, updates), state), loss


def ours(tx, carry, batch):
    model, state = carry
    x, label = batch

    def loss_fn(model):
        return optax.sigmoid_binary_cross_entropy(jax.vmap(model)(x), label)

    loss, grads = eqx.filter_value_and_grad(lambda model: loss_fn(model).mean())(model)
    value_fn = lambda p: loss_fn(eqx.combine(p, model))  # noqa: E731
    updates, state = tx.update(grads, state, arrays(model), value=loss, value_fn=value_fn)
    return (eqx.apply_updates(model, updates), state), loss


def entropy(x: PyTree, label: jax.Array) -> Callable[[PyTree, tuple[Any, PyTree]], jax.Array]:
    """The `judge` of these classifiers: their mean loss on some examples."""

    def judge(params: PyTree, carry: tuple[Any, PyTree]) -> jax.Array:
        logits = jax.vmap(eqx.combine(params, carry[0]))(x)
        return optax.sigmoid_binary_cross_entropy(logits, label).mean()

    return judge
