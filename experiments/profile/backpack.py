"""Variances of gradients over the examples: ours against BackPACK's, where PyTorch is installed.

Each relative to the plain gradient of its own framework, for the frameworks differ as well.
"""

import importlib
import os
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from ...curvature import exact, per_example
from .steps import Model, mlp
from .timing import clock, in_turns, quartiles

_WIDTHS, _BATCH, _PIXELS = (64, 256), 128, 784

# Computes the gradient; computes the variances as well and returns their sum.
Calls = tuple[Callable[[], Any], Callable[[], float]]


def measure(quick: bool, rounds: int) -> pd.DataFrame:
    """Measure both on MLPs of two sizes, in turns.

    Raises:
      RuntimeError: if PyTorch or BackPACK is not installed.
      AssertionError: if the two do not compute the same variances.
    """
    widths = _WIDTHS[:1] if quick else _WIDTHS
    return pd.concat([_compare(mlp(width), rounds) for width in widths])


def _compare(model: Model, rounds: int) -> pd.DataFrame:
    params, batch = jax.jit(model.init)(jax.random.key(0)), model.batch(_BATCH)
    calls = {"BackPACK": _theirs(params, batch), "mekax": _ours(model, params, batch)}
    np.testing.assert_allclose(*(total() for _, total in calls.values()), rtol=1e-3)
    clocks = {}
    for name, pair in calls.items():
        for what, call in zip(("gradient", "variances"), pair, strict=True):
            call()  # compiles
            clocks[what, name] = clock(lambda count, call=call: [call() for _ in range(count)])
    times = in_turns(clocks, rounds)
    size = {"parameters": model.parameters(), "batch_size": _BATCH}
    frame = pd.DataFrame({**size, "milliseconds": 1e3 * times["variances"].median()})
    ratios = pd.DataFrame(times["variances"] / times["gradient"])
    frame = frame.join(quartiles("to_gradient", ratios))
    return frame.rename_axis("library").reset_index()


def _ours(model: Model, params: Any, batch: Any) -> Calls:
    gradient = jax.jit(jax.grad(lambda p, batch: jnp.mean(model.losses(p, batch))))

    @jax.jit
    def statistics(p: Any, batch: Any) -> Any:
        # What is not returned, all about Hessians, is not computed.
        found = exact(per_example(model.loss, batch), p, p, covariance="diagonal")
        return found.gradient, optax.tree.sum(found.gradient_variance)

    return (
        lambda: jax.block_until_ready(gradient(params, batch)),
        lambda: float(statistics(params, batch)[1]),
    )


def _theirs(params: Any, batch: Any) -> Calls:
    try:
        torch, library = importlib.import_module("torch"), importlib.import_module("backpack")
    except ImportError as error:
        raise RuntimeError("it needs pip install torch backpack-for-pytorch") from error
    torch.set_num_threads(os.cpu_count() or 1)
    warnings.filterwarnings("ignore", message="Full backward hook is firing")  # from theirs
    modules = []
    for _, layer in sorted(params["params"].items()):
        kernel, bias = np.array(layer["kernel"]), np.array(layer["bias"])
        linear = torch.nn.Linear(*kernel.shape)
        linear.weight.data, linear.bias.data = torch.from_numpy(kernel.T), torch.from_numpy(bias)
        modules += [linear, torch.nn.ReLU()]
    model = library.extend(torch.nn.Sequential(*modules[:-1]))
    loss = library.extend(torch.nn.CrossEntropyLoss())
    x = torch.from_numpy(np.array(batch["x"]).reshape(_BATCH, _PIXELS))
    y = torch.from_numpy(np.array(batch["y"]).astype(np.int64))

    def gradient() -> None:
        model.zero_grad()
        loss(model(x), y).backward()

    def total() -> float:
        with library.backpack(library.extensions.Variance()):
            gradient()
        # Theirs is that of the terms ∇ℓ_i/n over n of them; ours that of the mean, over n − 1.
        scale = _BATCH**2 / (_BATCH - 1)
        return scale * sum(float(p.variance.sum()) for p in model.parameters())

    return gradient, total
