"""What is measured: a table over models and batches, and how cost grows; needs no jax."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

TABLE = "models"
BACKPACK = "BackPACK"
TABLES = (TABLE, "parameters", "batch", "per example", "chunks", BACKPACK)
_PLAIN = ("adam", "sgd", "adameka", "meka")
ALL = (
    *_PLAIN,
    "adameka, averaged",
    "adameka, metrics read",
    "adameka, value given",
    "adameka, measured at every step",
    "adam + rule, grad given",
    "momentum + rule, grad given",
    "lion + rule, grad given",
    "muon + rule, grad given",
    "sophia",
    "sam",
    "line search",
)
_PARTS = ("adam", "adameka", "meka", "adam, update alone", "adameka, update alone")
_PER_EXAMPLE = ("adam", "meka", "meka, exact", "vmap(jvp(grad)), no step")
_CHUNKS = ("adam", *(f"meka, exact, chunks of {n}" for n in (8, 32, 128, 512)))


@dataclass(frozen=True)
class Part:
    """Contenders on one case.

    Attributes:
      table: that it belongs to.
      case: name of the model.
      width: of its hidden layers, for the MLP; None as it is.
      batch_size: examples per step.
      contenders: to measure.
    """

    table: str
    case: str
    width: int | None
    batch_size: int
    contenders: tuple[str, ...]


def parts(quick: bool = False, tables: Collection[str] = ()) -> list[Part]:
    """Everything to measure, or some tables of it, in order."""
    return [part for part in _all(quick) if not tables or part.table in tables]


def _all(quick: bool) -> list[Part]:
    if quick:
        return [
            Part(TABLE, "mlp", 16, 32, ("adam", "adameka")),
            Part("parameters", "mlp", 12, 32, ("adam", "adameka, update alone")),
        ]
    models = ("mlp", "cnn", "transformer", "neural ODE")
    widths = (12, 100, 630, 2800)  # 10⁴ to 10⁷ parameters
    growing = (8, 32, 128, 512, 2048)
    return [
        *(Part(TABLE, case, None, 128, ALL) for case in models),
        *(Part(TABLE, case, None, n, _PLAIN) for case in models for n in (32, 512)),
        *(Part("parameters", "mlp", width, 128, _PARTS) for width in widths),
        *(Part("batch", "mlp", 64, n, ("adam", "adameka", "meka")) for n in growing),
        *(Part("per example", "mlp", width, 128, _PER_EXAMPLE) for width in (64, 256)),
        Part("per example", "cnn", None, 128, _PER_EXAMPLE),
        Part("chunks", "mlp", 64, 512, _CHUNKS),
    ]
