"""The next character of Python's own documentation, which ships with Python."""

from functools import partial
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..models import GRU, Transformer
from ..problem import Problem, PyTree, Source
from .common import deterministic

ALPHABET = " abcdefghijklmnopqrstuvwxyz0123456789.,:;!?'\"`()[]{}<>=+-*/_\n#"
LENGTH = 32
TRAIN, TEST = 8_000, 1_000


def next_character(name: str, source: Source, module: nn.Module) -> Problem:
    """Make the problem of telling each character by those before it.

    Args:
      name: of the problem.
      source: of no use, as the text is built in.
      module: maps integers (n, length) to logits of what follows, (n, length, characters).
    """
    del source
    train, test = _windows()

    def measure(params: PyTree, batch: PyTree) -> dict[str, jax.Array]:
        following = batch["text"][:, 1:]
        logits = cast(jax.Array, module.apply(params, batch["text"][:, :-1]))
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, following)
        correct = jnp.argmax(logits, axis=-1) == following
        return {"loss": jnp.mean(entropy, axis=1), "accuracy": jnp.mean(correct, axis=1)}

    loss, losses = deterministic(lambda params, batch: measure(params, batch)["loss"])
    return Problem(
        name=name,
        init=lambda key: module.init(key, jnp.zeros((1, LENGTH), jnp.int32)),
        loss=loss,
        losses=losses,
        measure=measure,
        data={"text": jnp.asarray(train)},
        test={"text": jnp.asarray(test)},
        batch_size=64,
        epochs=10,
    )


transformer = partial(next_character, module=Transformer(tokens=len(ALPHABET) + 1))
recurrent = partial(next_character, module=GRU(tokens=len(ALPHABET) + 1))


def _windows() -> tuple[np.ndarray, np.ndarray]:
    """Pieces of LENGTH + 1 characters from random places: the last tenth of the text is held out.

    Characters outside the alphabet become one more.
    """
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics)).lower()
    table = np.full(0x110000, len(ALPHABET), np.int32)
    table[[ord(letter) for letter in ALPHABET]] = np.arange(len(ALPHABET))
    codes = table[np.frombuffer(text.encode("utf-32-le"), np.uint32)]
    cut = 9 * len(codes) // 10
    rng = np.random.default_rng(2020)

    def pieces(part: np.ndarray, count: int) -> np.ndarray:
        starts = rng.integers(0, len(part) - LENGTH - 1, count)
        return part[starts[:, None] + np.arange(LENGTH + 1)]

    return pieces(codes[:cut], TRAIN), pieces(codes[cut:], TEST)
