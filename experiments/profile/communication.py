"""Bytes that devices exchange per step, read off the compiled program.

What a program exchanges depends neither on the speed of the machine nor on that of its network.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from functools import partial

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from . import steps, workloads
from .process import in_new_process
from .timing import Row

_DEVICES = 8
_OPTIMIZERS = ("adam", "adameka", "meka")
_SIZES = ((64, 128), (256, 128), (256, 1024))  # width of the MLP and batch
_BYTES = {"f64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "pred": 1}
_COLLECTIVE = re.compile(
    r"= (.*?) (?:all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)
_SHAPE = re.compile(rf"({'|'.join(_BYTES)})\[([\d,]*)\]")


def measure(quick: bool, rounds: int) -> list[Row]:
    """Compile data-parallel steps for 8 CPU devices, in a process that has so many."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={_DEVICES}"
    environment = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    chosen = list(itertools.product(_SIZES, _OPTIMIZERS))
    return in_new_process(count_bytes, chosen[:2] if quick else chosen, environment=environment)


def count_bytes(chosen: list[tuple[tuple[int, int], str]]) -> list[Row]:
    """Number and bytes of the collectives for widths and batches, and an optimizer each."""
    rows = []
    for (width, batch_size), optimizer in chosen:
        workload = workloads.load("mlp", width)
        parameters = workload.parameters()
        count, total = collective_bytes(_compiled_step(workload, optimizer, batch_size))
        size = {"optimizer": optimizer, "parameters": parameters, "batch_size": batch_size}
        sent = {"collectives": count, "bytes": total, "bytes_to_gradient": total / (4 * parameters)}
        rows.append(size | sent)
    return rows


def collective_bytes(program: str) -> tuple[int, int]:
    """Number and total result bytes of the collectives in the text of a compiled program.

    Example:
      >>> collective_bytes("%sum = (f32[2,3]{1,0}, bf16[4]{0}) all-reduce(%x, %y), channel_id=2")
      (1, 32)
    """
    results = _COLLECTIVE.findall(program)
    total = 0
    for dtype, shape in (array for result in results for array in _SHAPE.findall(result)):
        total += _BYTES[dtype] * math.prod(map(int, filter(None, shape.split(","))))
    return len(results), total


def _compiled_step(workload: workloads.Workload, optimizer: str, batch_size: int) -> str:
    """Text of a step whose batch is split over the devices, which all hold the parameters."""
    mesh = jax.make_mesh((_DEVICES,), ("data",), axis_types=(AxisType.Auto,))
    everywhere, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    step = steps.find(optimizer)
    program = jax.jit(partial(step.make, workload), in_shardings=(everywhere, split))
    carry = jax.eval_shape(lambda: step.start(workload))
    batch = jax.eval_shape(lambda: workload.batch(batch_size))
    return program.lower(carry, batch).compile().as_text() or ""
