"""Bytes that devices exchange per step, read off the compiled program.

What a program exchanges depends neither on the speed of the machine nor on that of its network.
"""

import itertools
import math
import os
import re
from collections.abc import Iterable
from functools import partial

import jax
import pandas as pd
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from .steps import STEPS, mlp
from .timing import in_new_process

_DEVICES = 8
_OPTIMIZERS = ("adam", "adameka", "meka")
_SIZES = ((64, 128), (256, 128), (256, 1024))  # width of the MLP and batch
_BYTES = {"f64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "pred": 1}
_COLLECTIVE = re.compile(
    r"= (.*?) (?:all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)
_SHAPE = re.compile(rf"({'|'.join(_BYTES)})\[([\d,]*)\]")


def measure(quick: bool, rounds: int) -> pd.DataFrame:
    """Compile data-parallel steps for 8 CPU devices, in a process that has so many."""
    chosen = list(itertools.product(_SIZES, _OPTIMIZERS))
    return in_new_process(count_bytes, chosen[:2] if quick else chosen)


def count_bytes(chosen: Iterable[tuple[tuple[int, int], str]]) -> pd.DataFrame:
    """Number and bytes of the collectives for widths and batches, and an optimizer each.

    The batch is split over the devices, all of which hold the parameters.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={_DEVICES}"
    jax.config.update("jax_platforms", "cpu")
    mesh = jax.make_mesh((_DEVICES,), ("data",), axis_types=(AxisType.Auto,))
    everywhere, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    rows = []
    for (width, batch_size), optimizer in chosen:
        model, step = mlp(width), STEPS[optimizer]
        carry = jax.eval_shape(partial(step.start, model))
        batch = jax.eval_shape(partial(model.batch, batch_size))
        program = jax.jit(partial(step.make, model), in_shardings=(everywhere, split))
        text = program.lower(carry, batch).compile().as_text() or ""
        rows.append((optimizer, model.parameters(), batch_size, *collective_bytes(text)))
    columns = ["optimizer", "parameters", "batch_size", "collectives", "bytes"]
    found = pd.DataFrame(rows, columns=columns)
    return found.assign(bytes_to_gradient=found.bytes / (4 * found.parameters))


def collective_bytes(program: str) -> tuple[int, int]:
    """Number and total result bytes of the collectives in the text of a compiled program.

    Example:
      >>> collective_bytes("%sum = (f32[2,3]{1,0}, bf16[4]{0}) all-reduce(%x, %y), channel_id=2")
      (1, 32)
    """
    results, total = _COLLECTIVE.findall(program), 0
    for dtype, shape in _SHAPE.findall(" ".join(results)):
        total += _BYTES[dtype] * math.prod(int(length) for length in shape.split(",") if length)
    return len(results), total
