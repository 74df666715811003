"""Bytes that devices exchange per step, read off the compiled program.

    python -m mekax.experiments.communication

compiles one data-parallel training step of an MLP on 8 (forced CPU) devices for several
optimizers, sizes and batches, and prints how many bytes of collectives each program contains.
What a program exchanges depends neither on the speed of the machine nor on that of its network.
"""

import itertools
import os
import re

DEVICES = 8
_BYTES = {"f64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "pred": 1}
_COLLECTIVE = re.compile(
    r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)
_SHAPE = re.compile(r"(f64|f32|s32|u32|bf16|f16|pred)\[([\d,]*)\]")


def collective_bytes(program: str) -> tuple[int, int]:
    """Number and total result bytes of the collectives in the text of a compiled program."""
    count, total = 0, 0
    for match in _COLLECTIVE.finditer(program):
        count += 1
        for dtype, dimensions in _SHAPE.findall(match.group(1)):
            size = 1
            for dimension in filter(None, dimensions.split(",")):
                size *= int(dimension)
            total += size * _BYTES[dtype]
    return count, total


def compiled_step(optimizer: str, width: int, batch_size: int) -> tuple[str, int]:
    """Text of the compiled step of a 64-width-width-1 MLP, and its number of parameters."""
    import jax
    import jax.numpy as jnp
    import optax
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    from ..optimizers import adameka, meka

    makers = {"adam": lambda: optax.adam(1e-3), "meka": meka, "adameka": adameka}
    tx = optax.with_extra_args_support(makers[optimizer]())
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(AxisType.Auto,))
    widths = (64, width, width, 1)
    shapes = list(itertools.pairwise(widths))
    params = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]

    def losses(weights, batch):
        x, y = batch
        for weight in weights[:-1]:
            x = jnp.tanh(x @ weight)
        return jnp.square((x @ weights[-1])[:, 0] - y)

    def step(params, state, batch):
        def value_fn(p):
            return losses(p, batch)

        grads = jax.grad(lambda p: value_fn(p).mean())(params)
        updates, state = tx.update(grads, state, params, value_fn=value_fn)
        return optax.apply_updates(params, updates), state

    def sharded(tree, spec):
        sharding = NamedSharding(mesh, spec)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
        )

    batch = (
        jax.ShapeDtypeStruct((batch_size, 64), jnp.float32),
        jax.ShapeDtypeStruct((batch_size,), jnp.float32),
    )
    replicated, split = PartitionSpec(), PartitionSpec("data")
    arguments = (
        sharded(params, replicated),
        sharded(jax.eval_shape(tx.init, params), replicated),
        sharded(batch, split),
    )
    text = jax.jit(step).lower(*arguments).compile().as_text()
    return text or "", sum(a * b for a, b in shapes)


def main() -> None:
    """Print the table."""
    print("| optimizer | parameters D | batch | collectives | bytes | bytes / 4D |")
    print("|---|---|---|---|---|---|")
    for width, batch_size in ((64, 128), (512, 128), (512, 1024)):
        for optimizer in ("adam", "meka", "adameka"):
            text, size = compiled_step(optimizer, width, batch_size)
            count, total = collective_bytes(text)
            print(
                f"| {optimizer} | {size:,} | {batch_size:,} | {count} | {total:,} "
                f"| {total / (4 * size):.3f} |"
            )


if __name__ == "__main__":
    flags = f"--xla_force_host_platform_device_count={DEVICES}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
    os.environ["JAX_PLATFORMS"] = "cpu"
    main()
