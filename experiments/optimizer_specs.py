"""Optimizers by name: `meka`, `adam:1e-3`, …; parsing needs no jax, building imports it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import UsageError, unknown_name

if TYPE_CHECKING:
    import optax

# Rate used where a baseline is named without one.
DEFAULT_RATES = {"adam": 1e-3, "adamw": 1e-3, "sgd": 0.1, "momentum": 0.1}

# Learning rates that `--tune` tries for each baseline.
RATE_GRIDS = {
    "adam": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1),
    "adamw": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1),
    "sgd": (3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0),
    "momentum": (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0),
}

RATE_FREE = ("meka", "adameka")
KINDS = (*RATE_FREE, *DEFAULT_RATES)


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer and, for a baseline, its learning rate.

    Attributes:
      kind: name of the algorithm, one of `KINDS`.
      learning_rate: positive, or None for the optimizers that find their own step size.
    """

    kind: str
    learning_rate: float | None = None

    @property
    def label(self) -> str:
        """Name in tables, figures and files, for example `adam:0.001`."""
        return self.kind if self.learning_rate is None else f"{self.kind}:{self.learning_rate:g}"

    @property
    def is_baseline(self) -> bool:
        """Whether the optimizer has a learning rate to choose."""
        return self.kind in DEFAULT_RATES


def parse(text: str) -> OptimizerSpec:
    """Read `kind` or `kind:learning_rate`.

    Args:
      text: for example `meka`, `adam`, `sgd:0.1`; a baseline without a rate gets its default,
        1e-3 for adam and adamw, 0.1 for sgd and momentum.

    Raises:
      UsageError: for an unknown kind, a rate that is not a positive number, or a rate given to
        an optimizer that takes none.

    Example:
      >>> parse("adam:1e-3").label
      'adam:0.001'
    """
    kind, colon, rate = text.partition(":")
    if kind not in KINDS:
        others = "Others are compared by mekax benchmark --methods."
        raise unknown_name("an optimizer", kind, KINDS, others)
    if kind in RATE_FREE:
        if colon:
            raise UsageError(
                f"expected {kind!r} without a learning rate, because it finds its own step size, "
                f"got {text!r}. Write --optimizers {kind}."
            )
        return OptimizerSpec(kind)
    return OptimizerSpec(kind, _rate(text, rate) if colon else DEFAULT_RATES[kind])


def parse_all(texts: Iterable[str]) -> tuple[OptimizerSpec, ...]:
    """Parse each text, keeping the order and dropping repetitions."""
    return tuple(dict.fromkeys(parse(text) for text in texts))


def grid(kind: str) -> tuple[OptimizerSpec, ...]:
    """Specs of one baseline over its grid of learning rates."""
    return tuple(OptimizerSpec(kind, rate) for rate in RATE_GRIDS[kind])


def build(kind: str, learning_rate: Any = None) -> optax.GradientTransformationExtraArgs:
    """Make the gradient transformation; all of them are called alike, with `value_fn`.

    The learning rate of a baseline lives in its state, so one compiled program serves every rate.

    Args:
      kind: one of `KINDS`.
      learning_rate: number or traced scalar, for the baselines.
    """
    if kind in RATE_FREE:
        return _build_ours(kind)
    import optax

    factories = {
        "adam": optax.adam,
        "adamw": optax.adamw,
        "sgd": optax.sgd,
        "momentum": lambda learning_rate: optax.sgd(learning_rate, momentum=0.9),
    }
    tx = optax.inject_hyperparams(factories[kind])(learning_rate=learning_rate)
    return optax.with_extra_args_support(tx)


def _build_ours(kind: str) -> optax.GradientTransformationExtraArgs:
    from ..optimizers import adameka, meka

    return {"meka": meka, "adameka": adameka}[kind]()


def _rate(text: str, rate: str) -> float:
    try:
        value = float(rate)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise UsageError(
            f"expected a positive number as the learning rate after the colon, got {text!r}. "
            f"Write for example {text.partition(':')[0]}:1e-3."
        )
    return value
