"""Every code block of docs/recipes.md runs, and does what the text around it says."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

pytest.importorskip("sklearn")
PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")


def _sections():
    for section in PAGE.split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        yield title, "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S))


SECTIONS = dict(_sections())
LOOP = SECTIONS.pop("The loop")


def run(code):
    """Run the loop's definitions, then `code`; return what they define."""
    names = {}
    exec(compile(LOOP + code, "docs/recipes.md", "exec"), names)
    return names


def loss(names, params):
    params = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    return float(names["losses"](params, names["images"], names["labels"]).mean())


@pytest.mark.parametrize("title", SECTIONS)
def test_recipe_runs_and_trains(title):
    names = run(SECTIONS[title])
    results = [names[name] for name in ("trained", "average", "half") if name in names]
    for params in results or [names["params"]]:
        assert loss(names, params) < np.log(10) - 0.1  # zero parameters have log 10


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((\.\./[^)#]+)\)", PAGE):
        assert (Path(__file__).parents[2] / "docs" / target).exists(), target


@pytest.fixture(scope="module")
def loop():
    return run("")


def _one_step(loop, tx, params, state):
    def value_fn(p):
        return loop["losses"](p, loop["images"][:32], loop["labels"][:32])

    grads = jax.grad(lambda p: value_fn(p).mean())(params)
    return tx.update(grads, state, params, value_fn=value_fn)


START = {"w": jnp.full((64, 10), 0.5), "b": jnp.ones(10)}


@pytest.fixture(scope="module")
def decay_step(loop):
    """`(decay, params, state) -> (updates, state)`, compiled once for every decay."""

    @jax.jit
    def step(decay, params, state):
        tx = optax.chain(loop["meka"](), optax.add_decayed_weights(-decay))
        return _one_step(loop, tx, params, state)

    return step, optax.chain(loop["meka"](), optax.add_decayed_weights(0.0)).init(START)


def test_decay_comes_on_top_of_the_step(decay_step):
    step, state = decay_step
    plain, decayed = (step(decay, START, state)[0] for decay in (0.0, 1e-4))
    expected = jax.tree.map(lambda u, p: u - 1e-4 * p, plain, START)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), decayed, expected)


@pytest.mark.parametrize(("decay", "fewest", "most"), [(1e-4, 11, 11), (0.1, 0, 5)])
def test_trust_learns_from_few_steps_under_a_large_decay(decay_step, decay, fewest, most):
    step, state = decay_step
    params = START
    for _ in range(12):
        updates, state = step(decay, params, state)
        params = optax.apply_updates(params, updates)
    assert fewest <= int(optax.tree.get(state, "lessons")) <= most


def test_clipping_before_the_filter_underestimates_slopes(loop):
    tx = optax.chain(optax.clip_by_global_norm(0.1), loop["meka"]())
    _, state = loop["train"](tx, loop["params"])
    assert float(loop["metrics"](state)["calibration"]) > 1.5


def test_injected_cap_counts_from_the_next_step_on(loop):
    tx = optax.inject_hyperparams(loop["meka"])(max_step_size=1e-2)
    state = tx.init(START)
    traces = []

    @jax.jit
    def step(state):
        traces.append(1)
        return _one_step(loop, tx, START, state)[1]

    for cap in (1e-2, 1e-3):
        state.hyperparams["max_step_size"] = jnp.float32(cap)
        state = step(state)
        np.testing.assert_allclose(loop["metrics"](state)["step_size"], cap, rtol=1e-4)
    assert len(traces) == 1


def test_chunks_change_nothing(loop):
    names = run(SECTIONS["Large batches"].split("@jax.jit")[0])
    batch, expected = (names["images"], names["labels"]), names["losses"]
    for chunk_size in (256, 7):
        value_fn = names["per_example"](names["loss_of_one"], batch, chunk_size=chunk_size)
        np.testing.assert_allclose(value_fn(START), expected(START, *batch), rtol=1e-4, atol=1e-5)
