"""Problems and optimizers by name, and that adding one is a file and a row."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.curvature import LineBelief
from mekax.experiments import problem, registry, train
from mekax.experiments.errors import UsageError
from mekax.experiments.registry import OPTIMIZERS, Optimizer, parse, parse_all
from mekax.experiments.registry.optimizers import ablation
from mekax.experiments.variants import (
    look_ahead,
    newton_steps,
    scheduled,
    switch_both_ways,
    within_budget,
)
from mekax.optimizers import (
    Evidence,
    Outcome,
    adaptive_trust_region,
    scale_by_expected_improvement,
)

PAGE = (Path(__file__).parents[2] / "docs" / "problems.md").read_text(encoding="utf-8")
LINE = """
import jax.numpy as jnp
from mekax.experiments.problem import Problem, batched

def problem(name, source):
    def loss(params, example, key):
        return (params["w"] * example["x"] - example["y"]) ** 2

    x = jnp.linspace(-1, 1, 64)
    data = {"x": x, "y": 3 * x}
    return Problem(
        name=name, init=lambda key: {"w": jnp.zeros(())}, loss=loss, losses=batched(loss),
        measure=lambda params, batch: {"loss": (params["w"] * batch["x"] - batch["y"]) ** 2},
        data=data, test=data, batch_size=8, epochs=1,
    )
"""


@pytest.fixture(autouse=True)
def _own_registry():
    before = dict(registry.PROBLEMS)
    yield
    registry.PROBLEMS.clear()
    registry.PROBLEMS.update(before)


# Names


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("meka", "meka"),
        ("adam", "adam:0.001"),
        ("adam:1e-2", "adam:0.01"),
        ("adamw:.5", "adamw:0.5"),
        ("momentum:0.1", "momentum:0.1"),
        ("prodigy", "prodigy"),
        ("meka-diagonal", "meka-diagonal"),
    ],
)
def test_parse(text, label):
    optimizer, setting = parse(text)
    assert optimizer.label(setting) == label
    assert parse(label) == (optimizer, setting)


@pytest.mark.parametrize("text", ["adam:0", "adam:-1", "adam:", "adam:x", "adam:nan", "adam:inf"])
def test_rate_must_be_a_positive_number(text):
    with pytest.raises(UsageError, match="positive number"):
        parse(text)


def test_no_rate_for_ours():
    with pytest.raises(UsageError, match="without a learning rate"):
        parse("meka:0.1")


@pytest.mark.parametrize(("typed", "meant"), [("mekka", "meka"), ("Adam", "adam"), ("sdg", "sgd")])
def test_did_you_mean(typed, meant):
    with pytest.raises(UsageError, match=f"Did you mean '{meant}'"):
        parse(typed)


def test_repetitions_are_dropped():
    assert list(parse_all(["adam", "meka", "adam:1e-3"])) == ["adam:0.001", "meka"]


def test_names_need_no_jax():
    code = "import sys; from mekax.experiments import registry; print('jax' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.stdout.strip() == "False"


# Optimizers


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_is_called_alike(name, parabola):
    """Traced only: that all of them can be built and agree with the loop's arguments."""
    optimizer = OPTIMIZERS[name]
    setting = {k: jnp.float32(v) for k, v in optimizer.settings[0].items()}

    def one_step(key, setting):
        tx = train.build(optimizer, setting, 10)
        carry = train.start(parabola, tx, key)
        carry, _ = train.one_step(parabola.losses, tx)(carry, parabola.data)
        evaluate = optimizer.eval_params() if optimizer.eval_params else lambda state, p: p
        return carry.params, evaluate(carry.state, carry.params)

    params, evaluated = jax.eval_shape(one_step, jax.random.key(0), setting)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, evaluated) == {"w": ()}
    assert optimizer.default.keys() == optimizer.settings[0].keys()


def test_grids_hold_the_defaults():
    for optimizer in registry.group("baseline"):
        rates = {setting["learning_rate"] for setting in optimizer.settings}
        assert len(rates) >= 6
        assert optimizer.default in optimizer.settings


def test_baselines_are_those_of_optax(parabola):
    pairs = {
        "adam": optax.adam,
        "adamw": optax.adamw,
        "sgd": optax.sgd,
        "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
    }
    params, grads = {"w": jnp.array([1.0, -2.0])}, {"w": jnp.array([0.3, 0.1])}
    for name, make in pairs.items():
        setting = {"learning_rate": 0.25, "schedule": 0}
        ours, theirs = OPTIMIZERS[name].build(setting, 10), make(0.25)
        mine, other = ours.init(params), theirs.init(params)
        for _ in range(3):
            updates, mine = ours.update(grads, mine, params, value_fn=None)
            expected, other = theirs.update(grads, other, params)
            np.testing.assert_allclose(updates["w"], expected["w"], rtol=1e-6)


def test_schedules():
    grads = {"w": jnp.array(1.0)}
    for number, expected in enumerate(([1, 1], [1, 0.1], [1, 0.024472])):
        tx = scheduled(optax.identity(), 1.0, float(number), 10)
        state, steps = tx.init(grads), []
        for _ in range(10):
            updates, state = tx.update(grads, state)
            steps.append(-float(updates["w"]))
        assert [steps[0], steps[-1]] == pytest.approx(expected, rel=1e-3)


# One file and one row


def test_an_optimizer_is_one_row(monkeypatch, mekax, tmp_path):
    """And is then in every command: here in a comparison and in a benchmark."""
    row = Optimizer(
        "signs",
        lambda setting, steps: optax.with_extra_args_support(
            optax.chain(optax.scale_by_sign(), optax.scale(-0.05))
        ),
        "learning_rate_free",
    )
    monkeypatch.setitem(OPTIMIZERS, "signs", row)
    file = tmp_path / "line.py"
    file.write_text(LINE)
    words = ("compare", str(file), "--optimizers", "signs", "--out", str(tmp_path / "compare"))
    result = mekax(*words)
    assert result.exit_code == 0, result.output
    assert "signs" in result.output
    words = "benchmark quadratic --profile smoke --jobs 1 --seeds 1 --optimizers signs --out"
    result = mekax(*words.split(), str(tmp_path / "benchmark"))
    assert result.exit_code == 0, result.output
    assert "| signs" in (tmp_path / "benchmark" / "benchmark.md").read_text()


def test_an_ablation_is_one_row(monkeypatch):
    row = ablation("adameka-mine", lambda v: v.adameka(curvature_interval=2))
    monkeypatch.setitem(OPTIMIZERS, row.name, row)
    assert row in registry.group("ablation")
    assert parse("adameka-mine") == (row, {})


def test_a_problem_is_one_file_and_one_row(monkeypatch, tmp_path, mekax):
    """The file lies where the package's problems are; the row names it."""
    import mekax.experiments.problems as package

    (tmp_path / "mekax_test_line.py").write_text(LINE)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    row = registry.ProblemEntry("a line", "mekax_test_line", "problem", examples=64)
    monkeypatch.setitem(registry.PROBLEMS, "line", row)
    assert "line" in mekax("problems").output
    result = mekax("compare", "line", "--optimizers", "sgd", "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output


def test_the_example_of_the_docs_trains(mekax, tmp_path):
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    file, out = tmp_path / "pendulum.py", tmp_path / "out"
    file.write_text(code)
    words = ["compare", str(file), "--optimizers", "adameka", "--out", str(out)]
    result = mekax(*words)
    assert result.exit_code == 0, result.output
    (job,) = (out / "jobs" / "pendulum").glob("*.json")
    measured = json.loads(job.read_text())["evaluations"]
    assert measured["test_loss"][0] > 5
    assert measured["test_loss"][-1] == pytest.approx(0.5, abs=0.1)  # what the noise comes to
    assert measured["test_error"][-1] < 0.05
    assert (out / "learned-adameka.png").stat().st_size > 10_000
    again = mekax(*words, "--resume")
    assert again.exit_code == 0, again.output


@pytest.mark.parametrize(
    ("name", "code", "expected"),
    [
        ("absent.py", None, "there is no"),
        ("empty.py", "", "expected a function problem(name, source)"),
        ("bare.py", "def problem(): return 3", "two arguments, name and source, got problem()"),
        ("wrong.py", "def problem(name, source): return 3", "got int"),
        ("digits.py", "", "name of its own"),
    ],
)
def test_bad_files(mekax, tmp_path, name, code, expected):
    if code is not None:
        (tmp_path / name).write_text(code)
    result = mekax("compare", str(tmp_path / name))
    assert result.exit_code == 2
    assert expected in result.output


def test_every_problem_of_the_page_exists_and_links_lead_somewhere():
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}
    assert named
    own = {"ode_classifier", "continuous_flow"}
    expected = {name for name, entry in registry.PROBLEMS.items() if entry.module in own}
    assert expected <= named
    for target in re.findall(r"\]\((\.\./[^)#]+)\)", PAGE):
        assert (Path(__file__).parents[2] / "docs" / target).exists(), target


def test_batched_gives_every_example_a_key():
    loss = lambda params, example, key: params + example + jax.random.normal(key)  # noqa: E731
    found = problem.batched(loss)(1.0, jnp.zeros(4), jax.random.key(0))
    assert len(set(found.tolist())) == 4


def test_problems_are_told_apart_by_identity(parabola):
    """What is compiled for one must not serve another with other data."""
    other = dataclasses.replace(parabola, data=problem.first(parabola.data, 8))
    assert other != parabola
    assert other.examples == 8
    assert other.programs is not parabola.programs


# What our rule is compared with: closed forms against textbooks and simulation


@pytest.mark.parametrize("slope", ["claimed", "shrunk", "regression", "half_batch"])
def test_newton_steps_end_at_the_minimum_without_noise(slope):
    """All corrections are 1 where every example says the same."""
    tx = newton_steps(slope)
    params = jnp.array([1.0, -2.0, 0.5])
    value_fn = lambda p: jnp.sum(p**2) * jnp.ones(4)  # noqa: E731
    grads = jax.grad(lambda p: value_fn(p).mean())(params)
    updates, _ = tx.update(grads, tx.init(params), params, value_fn=value_fn)
    np.testing.assert_allclose(updates, -params, rtol=1e-5)


def line(slope, curvature, slope_variance):
    """A belief about a line of which nothing but the slope is uncertain."""
    return LineBelief(
        value=jnp.float32(0),
        value_variance=jnp.float32(0),
        slope=jnp.float32(slope),
        slope_variance=jnp.float32(slope_variance),
        curvature=jnp.float32(curvature),
        curvature_variance=jnp.float32(0),
        covariance=jnp.float32(0),
    )


def test_looking_one_step_ahead_weighs_the_noise_of_the_slope():
    """The loss after one step α: ½(s²/h)(1 − αh)² + ½ h α² p, least at α = (1/h) s²/(s² + p)."""
    belief = line(-2.0, 4.0, 1.0)
    lengths = jnp.linspace(0.0, 1.0, 100_001)
    best = float(lengths[jnp.argmax(look_ahead(1)(belief, lengths))])
    assert best == pytest.approx(2.0 / 4.0 * 4 / 5, abs=1e-3)


def test_looking_ahead_agrees_with_simulation():
    a, h, p, steps, size = 1.0, 2.0, 0.5, 5, 0.3
    rng = np.random.default_rng(0)
    x = np.full(400_000, a / h)
    for _ in range(steps):
        x = x - size * (h * x + np.sqrt(p) * rng.normal(size=x.size))
    expected = float(look_ahead(steps)(line(-a, h, p), jnp.float32(size * a)))
    assert -expected == pytest.approx(0.5 * h * np.mean(x**2), rel=0.01)


def test_a_budget_ends_at_its_end():
    """Both learn the same, and what is left of the budget multiplies the radius."""
    nothing = jnp.float32(0)
    silence = Evidence(nothing, nothing, jnp.array(False), jnp.array(False))
    free, bound = rules = (adaptive_trust_region(), within_budget(adaptive_trust_region(), 4))
    states = [rule.init(jnp.float32) for rule in rules]
    ahead, seen, parts = line(-1.0, 0.0, 0.0), line(0.0, 1.0, 0.0), []
    for outcome in (Outcome.NONE, *4 * [Outcome.TAKEN]):
        states = [
            rule.update(
                state, jnp.int32(outcome), seen, ahead, silence, jnp.float32(1), jnp.float32(10)
            )
            for rule, state in zip(rules, states, strict=True)
        ]
        parts.append(bound.radius(states[1]) / free.radius(states[0]))
    np.testing.assert_allclose(parts, [1, 0.75, 0.5, 0.25, 1e-3], rtol=1e-5)


def test_switches_both_ways():
    """Fixed steps wherever the criterion fails, ours wherever it holds."""
    tx = switch_both_ways(0.01, lambda known: known["slope"] < 0, scale_by_expected_improvement())
    params = jnp.array([1.0])
    value_fn = lambda p: jnp.sum(p**2)  # noqa: E731
    gradient = 2 * params
    updates, _ = tx.update(gradient, tx.init(params), params, value_fn=value_fn)
    np.testing.assert_allclose(updates, [-0.4], rtol=1e-4)  # 0.4 of the Newton step
    tx = switch_both_ways(0.01, lambda known: known["slope"] > 0, scale_by_expected_improvement())
    updates, _ = tx.update(gradient, tx.init(params), params, value_fn=value_fn)
    np.testing.assert_allclose(updates, [-0.02], rtol=1e-4)
