"""Whether a run of days stays sound: `python -m mekax.experiments.long_run`.

Trains a small network on fresh noisy batches in float32 and bfloat16 and watches what may drift:
the spreads that the filters believe in, the counters, the loss, memory and speed.
"""

from __future__ import annotations

import functools
import resource
import time
from pathlib import Path
from typing import Any

import click
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..optimizers import adameka, meka, metrics
from . import files

STEPS, PARTS, AT_ONCE = 200_000, 20, 100  # the host is asked every AT_ONCE steps, like a real loop
_WIDTH, _BATCH, _NOISE = 16, 32, 0.3
OPTIMIZERS = {"meka": meka, "adameka": adameka}
SPREADS = ("slope_std", "curvature_std", "loss_std")


@click.command()
@click.argument("steps", type=click.IntRange(min=2 * PARTS * AT_ONCE), default=STEPS)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File of numbers.")
def main(steps: int, out: Path | None) -> None:
    """Train with both optimizers in both precisions, and tell what was seen."""
    found = []
    for name, make in OPTIMIZERS.items():
        for dtype in (jnp.float32, jnp.bfloat16):
            seen = watch(make(), dtype, steps)
            found.append({"optimizer": name, "dtype": jnp.dtype(dtype).name, **seen})
            click.echo(f"{name}, {found[-1]['dtype']}: {summary(seen)}")
            if out is not None:  # what is known is kept whatever happens next
                content = {"steps": steps, "runs": found, "versions": files.versions()}
                files.write_json(out, {**content, "device": files.device()})


def watch(
    tx: optax.GradientTransformationExtraArgs, dtype: Any, steps: int
) -> dict[str, list[float]]:
    """Train, and look PARTS times: at all metrics, the mean loss, speed and memory."""
    carry, advance = _training(tx, dtype)
    key = jax.random.key(1)
    carry, _ = advance(carry, jax.random.fold_in(key, 0))  # compiled; these steps count as well
    seen: dict[str, list[float]] = {}
    done = AT_ONCE
    for part in range(1, PARTS + 1):
        losses, clock = [], time.perf_counter()
        before = done
        while done < part * steps // PARTS:
            carry, loss = advance(carry, jax.random.fold_in(key, done))
            losses.append(float(loss))
            done += AT_ONCE
        looked = {
            "step": done,
            "loss": np.mean(losses),
            "microseconds": 1e6 * (time.perf_counter() - clock) / (done - before),
            "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "arrays": len(jax.live_arrays()),
            **jax.device_get(metrics(carry[1])),
        }
        for name, value in looked.items():
            seen.setdefault(name, []).append(float(value))
    return seen


def summary(seen: dict[str, list[float]]) -> str:
    """One line: the first part against the last, and the range of the spreads."""

    def ends(name: str) -> str:
        return f"{seen[name][0]:.3g} → {seen[name][-1]:.3g}"

    def span(name: str) -> str:
        return f"{min(seen[name]):.2g}–{max(seen[name]):.2g}"

    told = [f"{seen['step'][-1]:,.0f} steps", f"{seen['num_rejected'][-1]:.0f} rejected"]
    told += [f"{name} {ends(name)}" for name in ("loss", "radius", "microseconds", "megabytes")]
    told += [f"arrays {ends('arrays')}", *(f"{name} {span(name)}" for name in SPREADS)]
    return ", ".join(told)


def _training(tx: optax.GradientTransformationExtraArgs, dtype: Any) -> tuple[Any, Any]:
    """Parameters and state of a network that learns another, and AT_ONCE compiled steps."""
    shapes = ((_WIDTH, _WIDTH), (_WIDTH, 1))
    keys = jax.random.split(jax.random.key(0), 4)
    teacher, params = (
        [jax.random.normal(key, shape) for key, shape in zip(two, shapes, strict=True)]
        for two in (keys[:2], keys[2:])
    )
    params = [(leaf / _WIDTH**0.5).astype(dtype) for leaf in params]

    def outputs(params: Any, x: jax.Array) -> jax.Array:
        return (jnp.tanh(x @ params[0]) @ params[1])[:, 0]

    def step(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        params, state = carry
        data, noise = jax.random.split(key)
        x = jax.random.normal(data, (_BATCH, _WIDTH))
        y = outputs(teacher, x) + _NOISE * jax.random.normal(noise, (_BATCH,))

        def value_fn(params: Any) -> jax.Array:
            return jnp.square(outputs(params, x.astype(dtype)) - y)

        value, grads = jax.value_and_grad(lambda p: value_fn(p).mean())(params)
        updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=value_fn)
        return (optax.apply_updates(params, updates), state), value

    @functools.partial(jax.jit, donate_argnums=0)
    def advance(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        carry, losses = jax.lax.scan(step, carry, jax.random.split(key, AT_ONCE))
        return carry, losses.mean()

    return (params, tx.init(params)), advance


if __name__ == "__main__":
    main()
