"""Which optimizers each table compares on which models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from . import steps


class Part(NamedTuple):
    """Optimizers on one model: the width is that of the MLP, None for the model as it is."""

    model: str
    width: int | None
    batch_size: int
    optimizers: Sequence[str]


MODELS = ("mlp", "cnn", "transformer", "neural ODE")
_PLAIN, _GROWING = ("adam", "sgd", "adameka", "meka"), ("adam", "adameka", "meka")
_PER_EXAMPLE = ("adam", "meka", "meka, exact", "vmap(jvp(grad)), no step")
_CHUNKS = ("adam", *(f"meka, exact, chunks of {n}" for n in (8, 32, 128, 512)))
PARTS = {
    "models": [
        *(Part(model, None, 128, tuple(steps.TRAINING)) for model in MODELS),
        *(Part(model, None, n, _PLAIN) for model in MODELS for n in (32, 512)),
    ],
    "parameters": [
        Part("mlp", width, 128, (*_GROWING, "adam, update alone", "adameka, update alone"))
        for width in (12, 100, 630, 2800)  # 10⁴ to 10⁷ parameters
    ],
    "batch": [Part("mlp", 64, n, _GROWING) for n in (8, 32, 128, 512, 2048)],
    "per example": [
        *(Part("mlp", width, 128, _PER_EXAMPLE) for width in (64, 256)),
        Part("cnn", None, 128, _PER_EXAMPLE),
    ],
    "chunks": [Part("mlp", 64, 512, _CHUNKS)],
}


def parts(table: str, quick: bool = False) -> list[Part]:
    """What a table compares; if quick, Adam and the last optimizer of its first part, small.

    Example:
      >>> parts("batch", quick=True)
      [Part(model='mlp', width=12, batch_size=32, optimizers=('adam', 'meka'))]
    """
    names = PARTS[table][0].optimizers
    return [Part("mlp", 12, 32, (names[0], names[-1]))] if quick else PARTS[table]
