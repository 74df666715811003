"""Variances of gradients over the examples: ours against BackPACK's, where PyTorch is installed.

Each in units of the plain gradient of its own framework, for the frameworks differ as well.
"""

from __future__ import annotations

import importlib.util
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...curvature import exact, per_example
from .cases import Case, mlp

_WIDTHS, _BATCH, _PIXELS = (64, 256), 128, 784
_SECONDS = 0.05  # that one measurement takes, at least


def installed() -> bool:
    """Whether there is anything to compare with."""
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "backpack"))


def found_or_missing() -> str:
    """What to say about it."""
    if installed():
        return "variances of gradients, ours and theirs"
    return "not measured; it needs pip install torch backpack-for-pytorch"


@dataclass(frozen=True)
class Compared:
    """What the variances of the gradient cost.

    Attributes:
      library: that computes them.
      parameters: of the MLP.
      batch_size: examples.
      seconds: for gradient and variances, median over the rounds.
      to_gradient: the same relative to the gradient alone, median of the ratios.
      low: lower quartile of that ratio.
      high: upper quartile of it.
    """

    library: str
    parameters: int
    batch_size: int
    seconds: float
    to_gradient: float
    low: float
    high: float


def in_turns(rounds: int) -> list[Compared]:
    """Measure both on MLPs of two sizes, one after the other and over again.

    Raises:
      AssertionError: if they do not compute the same variances.
    """
    found = []
    for width in _WIDTHS:
        case = mlp(width)
        params, batch = case.init(jax.random.key(0)), case.batch(_BATCH)
        ours, theirs = _ours(case, params, batch), _theirs(params, batch)
        np.testing.assert_allclose(ours[1](), theirs[1](), rtol=1e-3)
        calls = {"mekax": ours, "BackPACK": theirs}
        counts = {name: [_enough(call) for call in two] for name, two in calls.items()}
        times: dict[str, list[list[float]]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, two in calls.items():
                pairs = zip(two, counts[name], strict=True)
                times[name].append([_seconds(call, count) for call, count in pairs])
        for name, measured in times.items():
            plain, with_variances = np.array(measured).T
            low, middle, high = np.quantile(with_variances / plain, (0.25, 0.5, 0.75))
            seconds = float(np.median(with_variances))
            found.append(
                Compared(
                    name, case.parameters(), _BATCH, seconds, float(middle), float(low), float(high)
                )
            )
    return found


def _seconds(call: Callable[[], Any], count: int) -> float:
    begin = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - begin) / count


def _enough(call: Callable[[], Any]) -> int:
    call()  # compiled
    count = 1
    while count * _seconds(call, count) < _SECONDS:
        count *= 2
    return count


def _ours(case: Case, params: Any, batch: Any) -> tuple[Callable[[], Any], Callable[[], float]]:
    """The gradient alone; and with the variances, of which the mean over the examples is told."""

    @jax.jit
    def plain(params: Any, batch: Any) -> Any:
        return jax.grad(lambda p: jnp.mean(case.losses(p, batch)))(params)

    @jax.jit
    def both(params: Any, batch: Any) -> Any:
        def loss(params: Any, example: Any) -> jax.Array:
            return case.losses(params, jax.tree.map(lambda leaf: leaf[None], example))[0]

        # What is not returned, all about Hessians, is not computed.
        found = exact(per_example(loss, batch), params, params, covariance="diagonal")
        return found.gradient, found.gradient_variance

    def total() -> float:
        return float(sum(jnp.sum(leaf) for leaf in jax.tree.leaves(both(params, batch)[1])))

    return lambda: jax.block_until_ready(plain(params, batch)), total


def _theirs(params: Any, batch: Any) -> tuple[Callable[[], Any], Callable[[], float]]:
    torch, library = importlib.import_module("torch"), importlib.import_module("backpack")
    variance, extend = library.extensions.Variance(), library.extend
    torch.set_num_threads(os.cpu_count() or 1)
    warnings.filterwarnings("ignore", message="Full backward hook is firing")  # from theirs
    layers = sorted(params["params"].items())
    modules = []
    for _, layer in layers:
        kernel, bias = np.array(layer["kernel"]), np.array(layer["bias"])
        linear = torch.nn.Linear(*kernel.shape)
        linear.weight.data, linear.bias.data = torch.from_numpy(kernel.T), torch.from_numpy(bias)
        modules += [linear, torch.nn.ReLU()]
    model = extend(torch.nn.Sequential(*modules[:-1]))
    loss = extend(torch.nn.CrossEntropyLoss())
    x = torch.from_numpy(np.array(batch["image"]).reshape(_BATCH, _PIXELS))
    y = torch.from_numpy(np.array(batch["label"]).astype(np.int64))

    def plain() -> None:
        model.zero_grad()
        loss(model(x), y).backward()

    def total() -> float:
        model.zero_grad()
        with library.backpack(variance):
            loss(model(x), y).backward()
        # Theirs is that of the terms ∇ℓ_i/n over n of them; ours that of the mean, over n − 1.
        scale = _BATCH**2 / (_BATCH - 1)
        return scale * sum(float(p.variance.sum()) for p in model.parameters())

    return plain, total
