"""Which device to compute on, as a word of the command line."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from .errors import UsageError

KINDS = ("cpu", "gpu", "tpu")


def check(text: str | None) -> tuple[str, int] | None:
    """Read `cpu`, `gpu`, `tpu`, or one of several devices as `gpu:1`; None stays None.

    Example:
      >>> check("gpu:1")
      ('gpu', 1)

    Raises:
      UsageError: if it is none of these.
    """
    if text is None:
        return None
    kind, _, number = text.partition(":")
    if kind not in KINDS or not (number or "0").isdecimal():
        raise UsageError(
            f"expected --device to be {', '.join(KINDS)}, or one of several as gpu:1, got "
            f"{text!r}. Leave it out for the device that JAX chooses."
        )
    return kind, int(number or 0)


def using(device: tuple[str, int] | None) -> AbstractContextManager:
    """A context in which everything is computed there.

    Raises:
      UsageError: if JAX does not see that device.
    """
    if device is None:
        return nullcontext()
    import jax

    kind, number = device
    try:
        found = jax.devices(kind)
    except RuntimeError:  # no such kind
        found = []
    if number >= len(found):
        seen = ", ".join(str(one) for one in jax.devices())
        raise UsageError(
            f"expected --device to be one that JAX sees, got {kind}:{number}, and it sees {seen}. "
            "Install JAX for that device, or leave --device out."
        )
    return jax.default_device(found[number])
