"""The examples train, are short, and do not couple the examples of a batch."""

import importlib.util
import math
from pathlib import Path

import jax
import numpy as np
import pytest

pytest.importorskip("sklearn")
FOLDER = Path(__file__).parents[2] / "examples"
NEEDS = {
    "bare_pytree": None,
    "equinox_loop": "equinox",
    "flax_linen": "flax",
    "flax_nnx": "flax",
    "flax_train_state": "flax",
    "numpyro_svi": "numpyro",
}


def load(name):
    if NEEDS[name]:
        pytest.importorskip(NEEDS[name])
    spec = importlib.util.spec_from_file_location(f"examples_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_examples_are_tested():
    assert {path.stem for path in FOLDER.glob("*.py")} == set(NEEDS)


@pytest.mark.parametrize("name", NEEDS)
def test_at_most_45_lines(name):
    assert len((FOLDER / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 45


@pytest.mark.parametrize("name", NEEDS)
def test_example_trains(name):
    logs = list(load(name).train(steps=30))
    assert len(logs) == 30
    assert all(math.isfinite(value) for log in logs for value in log.values())
    assert logs[-1]["loss_mean"] < 0.25 * logs[0]["loss_mean"]
    assert logs[-1]["num_rejected"] == 0
    assert logs[-1]["num_adaptations"] >= 25
    assert max(log["gradient_mismatch"] for log in logs) < 0.01


@pytest.mark.parametrize("name", ["flax_linen", "flax_nnx"])
def test_examples_of_a_batch_are_not_coupled(name):
    module = load(name)
    x = module.images[:3] + 0.5

    if name == "flax_linen":
        variables = jax.jit(module.Net().init)(jax.random.key(0), x)

        def logits(x):
            rngs = {"dropout": jax.random.key(1)}
            return module.Net().apply(variables, x, rngs=rngs, mutable=["statistics"])[0]
    else:

        def logits(x):
            return module.Net(module.nnx.Rngs(0))(x)

    jacobian = np.abs(jax.jit(jax.jacrev(logits))(x)).sum((1, 3))  # (example, example)
    assert (np.diag(jacobian) > 0).all()
    assert (jacobian[~np.eye(3, dtype=bool)] == 0).all()
