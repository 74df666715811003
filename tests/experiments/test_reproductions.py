import importlib
import json
import math
import re
import sys
from types import SimpleNamespace

import numpy as np
import optax
import pytest
from mekax.experiments import reproductions
from mekax.experiments.plots import figure
from mekax.experiments.reproductions import REPRODUCTIONS, Entry, trainings
from mekax.experiments.reproductions.claims import Reproduction, Verdict, check, check_ratio, table


@pytest.fixture
def enter(monkeypatch):
    """Make a row the only one."""

    def enter(entry):
        for name in tuple(REPRODUCTIONS):
            monkeypatch.delitem(REPRODUCTIONS, name)
        monkeypatch.setitem(REPRODUCTIONS, "x-y", entry)

    return enter


@pytest.fixture
def example(monkeypatch, enter):
    """Put an example in the place of the real ones; returns what it was called with."""
    calls = []

    def run(dimension, *, seeds):
        calls.append((dimension, seeds))
        return Reproduction(
            figure(2, 2),
            claims={
                "the slope is at most −0.8": Verdict(-0.95, (-1.0, -0.9), True),
                "the ratio is at least 50": Verdict(20.0, (20.0, 20.0), dimension > 2),
            },
            data={"x": np.arange(2), "y": math.inf},
            tables={"<script>": table("a", {"[1]": {"b": 2.0}})},
        )

    sizes = {"FULL": {"dimension": 20}, "QUICK": {"dimension": 2}}
    module = SimpleNamespace(run=run, BOUND=3.0, NAMES={}, **sizes)
    monkeypatch.setitem(sys.modules, f"{reproductions.__name__}.x_y", module)
    enter(Entry("-"))
    return calls


FILE = """
from mekax.experiments.plots import figure
from mekax.experiments.reproductions.claims import Reproduction, check

FULL = {"sides": (3, 4)}
QUICK = {"sides": (1, 1)}

def run(sides, *, seeds):
    claims = {"the sum is at least 7": check([sum(sides)], at_least=7)}
    return Reproduction(figure(2, 2), claims, {})
"""


def test_a_reproduction_is_one_file_and_one_row(monkeypatch, tmp_path, mekax, enter):
    """The file lies where the package's are; the row names it."""
    (tmp_path / "x_y.py").write_text(FILE)
    monkeypatch.setattr(reproductions, "__path__", [*reproductions.__path__, str(tmp_path)])
    enter(Entry("a sum"))
    result = mekax("reproduce", "x-y", "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert "the sum is at least 7" in result.output
    result = mekax("reproduce", "x-y", "--quick", "--out", str(tmp_path / "quick"))
    assert result.exit_code == 1, result.output
    monkeypatch.delitem(sys.modules, f"{reproductions.__name__}.x_y")


def test_an_interrupted_reproduction_keeps_what_is_trained(
    monkeypatch, tmp_path, mekax, enter, parabola
):
    trained = []

    def train(problem, optimizer, runs, **options):
        trained.append(optimizer.name)
        if trained == ["sgd", "sgd"]:
            raise KeyboardInterrupt
        return trainings.real(problem, optimizer, runs, **options)

    def run(steps, *, seeds):
        budget = {"label": "sgd", "seeds": seeds, "steps": steps, "batch_size": 8}
        ends = [
            trainings.train(parabola, lambda _, rate=rate: optax.sgd(rate), **budget)[0]
            for rate in (0.1, 0.2)
        ]
        data = {"ends": np.stack([curves["train_loss"][:, -1] for curves in ends])}
        return Reproduction(figure(2, 2), {"done": check([1.0])}, data)

    monkeypatch.setattr(trainings, "real", trainings.train_runs, raising=False)
    monkeypatch.setattr(trainings, "train_runs", train)
    module = SimpleNamespace(run=run, FULL={"steps": 20}, QUICK={"steps": 10})
    monkeypatch.setitem(sys.modules, f"{reproductions.__name__}.x_y", module)
    enter(Entry("-"))
    words = ["reproduce", "x-y", "--seeds", "2", "--out", str(tmp_path)]
    assert mekax(*words).exit_code == 130
    assert not (tmp_path / "x-y.json").exists()
    result = mekax(*words)
    assert result.exit_code == 0, result.output
    assert len(trained) == 3  # the first is not trained again
    found = json.loads((tmp_path / "x-y.json").read_text())["data"]["ends"]
    np.testing.assert_allclose(found, run(20, seeds=2).data["ends"], rtol=1e-3)
    assert found[0] != found[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x-y.json", "x-y.png"]


def test_verdicts_are_written_and_shown(mekax, tmp_path, example):
    out = tmp_path / "out"
    result = mekax("reproduce", "x-y", "--seeds", "3", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert "the slope is at most −0.8" in result.output
    assert example == [(20, 3)]
    content = json.loads((out / "x-y.json").read_text(), parse_constant=pytest.fail)
    assert content["settings"] == {"bound": 3.0, "dimension": 20}
    assert content["asked"] == {"quick": False, "seeds": 3, "device": None}
    assert content["data"] == {"x": [0, 1], "y": None}
    assert content["claims"][0] == {
        "statement": "the slope is at most −0.8",
        "measured": -0.95,
        "interval": [-1.0, -0.9],
        "holds": True,
    }
    assert content["tables"] == [
        {"title": "<script>", "header": ["a", "b"], "rows": [["[1]", "2"]]}
    ]
    assert content["versions"]["jax"]
    assert (out / "x-y.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_complete_is_not_run_again(mekax, tmp_path, example):
    words = ["reproduce", "x-y", "--seeds", "3", "--out", str(tmp_path / "out")]
    assert mekax(*words).exit_code == 0
    again = mekax(*words)
    assert again.exit_code == 0
    assert len(example) == 1
    assert "already there" in again.output
    assert "the slope is at most −0.8" in again.output
    other = mekax(*words, "--quick")
    assert other.exit_code == 2
    assert "quick was False, is now True" in other.output


def test_what_was_interrupted_restarts(mekax, tmp_path, example, monkeypatch):
    def stop(dimension, *, seeds):
        raise KeyboardInterrupt

    module = sys.modules[f"{reproductions.__name__}.x_y"]
    whole = module.run
    monkeypatch.setattr(module, "run", stop)
    words = ["reproduce", "x-y", "--out", str(tmp_path / "out")]
    stopped = mekax(*words)
    assert stopped.exit_code == 130
    assert "continues" in stopped.output
    monkeypatch.setattr(module, "run", whole)
    assert mekax(*words).exit_code == 0
    assert example == [(20, 10)]


def test_damaged_results_are_not_overwritten(mekax, tmp_path, example):
    (tmp_path / "x-y.json").write_text('{"schema": 2')
    result = mekax("reproduce", "x-y", "--out", str(tmp_path))
    assert result.exit_code == 2
    assert "cannot be understood" in result.output
    assert not example


def test_a_claim_that_does_not_hold_fails(mekax, tmp_path, example):
    result = mekax("reproduce", "x-y", "--quick", "--out", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert "does not hold" in result.output
    assert example == [(2, 3)]


def test_bounds_of_a_claim():
    assert check([1.0, 2.0], at_most=2).holds
    assert not check([1.0, 2.0], at_least=2).holds
    geometric = check_ratio([1.0, 100.0], at_most=11)
    assert geometric.holds
    assert geometric.measured == pytest.approx(10)
    assert geometric.interval == pytest.approx((1, 100))
    for broken in ([1.0, math.nan], [math.inf]):
        for verdict in (check(broken), check_ratio(broken)):
            assert not verdict.holds
            assert verdict.interval is None


@pytest.mark.parametrize(("device", "words"), [("toaster", "cpu, gpu, tpu"), ("cpu:99", "sees")])
def test_unknown_devices(mekax, tmp_path, example, device, words):
    result = mekax("reproduce", "x-y", "--device", device, "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert words in result.output
    assert not example


def test_device_is_used(mekax, tmp_path, example):
    result = mekax("reproduce", "x-y", "--device", "cpu", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "x-y.json").read_text())["device"]["platform"] == "cpu"


def test_report_of_all_is_one_file_with_escaped_text(mekax, tmp_path, example, enter):
    enter(Entry("a <b>bold</b> idea"))
    result = mekax("reproduce", "all", "--quick", "--out", str(tmp_path))
    assert result.exit_code == 1
    page = (tmp_path / "report.html").read_text()
    assert "a &lt;b&gt;bold&lt;/b&gt; idea" in page
    assert "<b>" not in page
    assert "&lt;script&gt;" in page  # of the table
    assert "<script>" not in page
    assert "data:image/png;base64," in page
    assert page.count("does not hold") == 1
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)


def test_absent_data(mekax, tmp_path, example, enter):
    enter(Entry("-", ("mnist",)))
    full = mekax("reproduce", "x-y", "--out", str(tmp_path / "full"))
    assert full.exit_code == 2
    assert "prepared dataset 'mnist'" in full.output
    quick = mekax("reproduce", "x-y", "--quick", "--out", str(tmp_path / "quick"))
    assert "digits stand in" in quick.output
    assert len(example) == 1


def test_every_row_has_a_file_with_sizes():
    for name in REPRODUCTIONS:
        module = importlib.import_module(f"{reproductions.__name__}.{name.replace('-', '_')}")
        assert module.FULL.keys() == module.QUICK.keys()
