"""How the gallery's programs in Equinox begin, and what of them is judged."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

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
