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
OWN_MODEL = {"Complex parameters", "BatchNorm"}
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
    if title in OWN_MODEL:
        return
    results = [names[name] for name in ("trained", "average", "half") if name in names]
    for params in results or [names["params"]]:
        assert loss(names, params) < np.log(10) - 0.1  # zero parameters have log 10


def test_batch_norm_at_the_average():
    names = run(SECTIONS["BatchNorm"])
    average, stats = names["average"], names["stats"]
    there = names["normalized_losses"](average, stats, names["images"], names["labels"])
    assert float(there.mean()) < 1.0  # 2.3 at the start
    np.testing.assert_allclose(stats[0], (names["images"] / 16 @ average["hidden"]).mean(0))


def test_float64_is_kept(float64):
    names = run(SECTIONS["Donated buffers, and float64"])
    kept = jax.tree.leaves((names["params"], names["state"]))
    floating = {leaf.dtype for leaf in kept if jnp.issubdtype(leaf.dtype, jnp.floating)}
    assert floating == {jnp.dtype("float64")}


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((\.\./[^)#]+)\)", PAGE):
        assert (Path(__file__).parents[2] / "docs" / target).exists(), target


@pytest.fixture(scope="module")
def loop():
    return run("")


def _one_step(loop, tx, params, state, raw=True):
    def value_fn(p):
        return loop["losses"](p, loop["images"][:32], loop["labels"][:32])

    grads = jax.grad(lambda p: value_fn(p).mean())(params)
    extras = {"grad": grads} if raw else {}
    return tx.update(grads, state, params, value_fn=value_fn, **extras)


START = {"w": jnp.full((64, 10), 0.5), "b": jnp.ones(10)}


@pytest.fixture(scope="module")
def shrinking_step(loop):
    """`(rate, params, state) -> (updates, state)`: something shrinks the parameters after us."""

    @jax.jit
    def step(rate, params, state):
        tx = optax.chain(loop["adameka"](), optax.add_decayed_weights(-rate))
        return _one_step(loop, tx, params, state)

    return step, optax.chain(loop["adameka"](), optax.add_decayed_weights(0.0)).init(START)


@pytest.mark.parametrize(("rate", "fewest", "most"), [(0.0, 11, 11), (0.1, 0, 5)])
def test_trust_region_learns_only_from_steps_made_as_chosen(
    loop, shrinking_step, rate, fewest, most
):
    step, state = shrinking_step
    params = START
    for _ in range(12):
        updates, state = step(rate, params, state)
        params = optax.apply_updates(params, updates)
    assert fewest <= int(loop["metrics"](state)["num_adaptations"]) <= most


def test_weight_decay_is_multiplied_by_the_step_size(loop):
    plain, decayed = loop["adameka"](), loop["adameka"](weight_decay=0.1)
    states = [_one_step(loop, tx, START, tx.init(START)) for tx in (plain, decayed)]
    (u0, s0), (u1, s1) = states
    a0, a1 = (loop["metrics"](s)["step_size"] for s in (s0, s1))
    jax.tree.map(
        lambda u, v, p: np.testing.assert_allclose(v / a1, u / a0 - 0.1 * p, rtol=1e-3, atol=1e-4),
        u0,
        u1,
        START,
    )


def test_clipped_gradient_without_the_raw_one_is_noticed(loop):
    tx = optax.chain(optax.clip_by_global_norm(0.1), loop["adameka"]())
    _, state = _one_step(loop, tx, START, tx.init(START))
    assert float(loop["metrics"](state)["gradient_mismatch"]) < 0.1
    _, state = jax.jit(lambda state: _one_step(loop, tx, START, state, raw=False))(tx.init(START))
    assert float(loop["metrics"](state)["gradient_mismatch"]) > 0.1
    with pytest.raises(ValueError, match="pass the raw one as grad="):
        _one_step(loop, tx, START, tx.init(START), raw=False)


def test_injected_cap_counts_from_the_next_step_on(loop):
    tx = optax.inject_hyperparams(loop["adameka"])(max_step_size=1e-2)
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
