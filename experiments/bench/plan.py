"""What is measured: a table over models and batches, and how cost grows; needs no jax."""

from __future__ import annotations

from dataclasses import dataclass

TABLE = "models"
ALL = (
    "adam",
    "sgd",
    "adameka",
    "adameka, averaged",
    "adameka, metrics read",
    "adameka, looking always",
    "adam + rule",
    "meka",
    "meka, exact statistics",
    "sophia",
    "sam",
    "line search",
)
_OURS = ("adam", "adameka", "meka")


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


def parts(quick: bool = False) -> list[Part]:
    """Everything to measure, in order."""
    models, batches = ("mlp", "cnn", "transformer"), (32, 128, 512)
    widths = (12, 100, 630, 2800)  # 10⁴, 10⁵, 10⁶ and 10⁷ parameters
    growing = (8, 32, 128, 512, 2048)
    if quick:
        models, batches, widths, growing = ("mlp",), (32,), (12,), (8,)
    return [
        *(Part(TABLE, case, None, n, ALL) for case in models for n in batches),
        *(Part("parameters", "mlp", width, 128, _OURS) for width in widths),
        *(Part("batch", "mlp", 64, n, (*_OURS, "meka, exact statistics")) for n in growing),
    ]
