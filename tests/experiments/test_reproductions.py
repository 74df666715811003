import json
import math
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from mekax.experiments import reproductions
from mekax.experiments.reproductions import Claim, Entry, Reproduction, Table, drawing
from mekax.experiments.reproductions.claims import check


@pytest.fixture
def example(monkeypatch):
    """Put an example in the place of the real ones; returns what it was called with."""
    calls = []

    def run(out, quick, seeds, report):
        calls.append((out, quick, seeds))
        claims = [
            Claim("the slope is at most −0.8", -0.95, (-1.0, -0.9), True),
            Claim("the ratio is at least 50", 20.0, None, not quick),
        ]
        tables = [Table("<script>", ("a", "b"), [("[1]", "2")])]
        settings = {"dimension": 2} if not quick else {"quick": True}
        return Reproduction(settings, {"x": np.arange(2), "y": math.inf}, claims, tables)

    package = reproductions.__name__
    monkeypatch.setitem(sys.modules, f"{package}.example", SimpleNamespace(run=run))
    monkeypatch.setattr(reproductions.registry, "REPRODUCTIONS", {"x-y": Entry("-", "example")})
    return calls


def test_verdicts_are_written_and_shown(mekax, tmp_path, example):
    out = tmp_path / "out"
    result = mekax("reproduce", "x-y", "--seeds", "3", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert "the slope is at most −0.8" in result.output
    assert example == [(out, False, 3)]
    content = json.loads((out / "x-y.json").read_text(), parse_constant=pytest.fail)
    assert content["settings"] == {"dimension": 2}
    assert content["asked"] == {"quick": False, "seeds": 3, "device": None}
    assert content["data"] == {"x": [0, 1], "y": None}
    assert content["claims"][0] == {
        "statement": "the slope is at most −0.8",
        "measured": -0.95,
        "interval": [-1.0, -0.9],
        "holds": True,
    }
    assert content["versions"]["jax"]


def test_what_is_complete_is_not_run_again(mekax, tmp_path, example):
    words = ["reproduce", "x-y", "--seeds", "3", "--out", str(tmp_path / "out")]
    assert mekax(*words).exit_code == 0
    (tmp_path / "out" / "x-y.png").touch()
    again = mekax(*words)
    assert again.exit_code == 0
    assert len(example) == 1
    assert "already there" in again.output
    assert "the slope is at most −0.8" in again.output
    other = mekax(*words, "--quick")
    assert other.exit_code == 2
    assert "quick was False, is now True" in other.output


def test_what_was_interrupted_restarts(mekax, tmp_path, example, monkeypatch):
    def stop(out, quick, seeds, report):
        (out / "x-y.png").touch()
        raise KeyboardInterrupt

    module = sys.modules[f"{reproductions.__name__}.example"]
    whole = module.run
    monkeypatch.setattr(module, "run", stop)
    words = ["reproduce", "x-y", "--out", str(tmp_path / "out")]
    stopped = mekax(*words)
    assert stopped.exit_code == 130
    assert "continues" in stopped.output
    monkeypatch.setattr(module, "run", whole)
    assert mekax(*words).exit_code == 0
    assert example == [(tmp_path / "out", False, 10)]


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
    assert example[0][1:] == (True, 3)


def test_bounds_of_a_claim():
    assert check("at most 2", [1.0, 2.0], at_most=2).holds
    assert not check("an invented one: at least 2", [1.0, 2.0], at_least=2).holds
    geometric = check("a ratio", [1.0, 100.0], at_most=11, ratio=True)
    assert geometric.holds
    assert geometric.measured == pytest.approx(10)
    assert geometric.interval == pytest.approx((1, 100))
    for broken in ([1.0, math.nan], [math.inf]):
        claim = check("whatever is infinite", broken)
        assert not claim.holds
        assert claim.interval is None


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


def test_report_of_all_is_one_file_with_escaped_text(mekax, tmp_path, example, monkeypatch):
    registry = reproductions.registry
    monkeypatch.setattr(registry, "REPRODUCTIONS", {"x-y": Entry("a <b>bold</b> idea", "example")})
    figure = drawing.figure("a picture", True, 2, 2)
    drawing.save(figure, tmp_path, "x-y")
    out = str(tmp_path)
    result = mekax("reproduce", "all", "--quick", "--out", out)
    assert result.exit_code == 1
    page = (tmp_path / "report.html").read_text()
    assert "a &lt;b&gt;bold&lt;/b&gt; idea" in page
    assert "<b>" not in page
    assert "&lt;script&gt;" in page  # of the table
    assert "<script>" not in page
    assert "data:image/png;base64," in page
    assert page.count("does not hold") == 1
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)


def test_absent_data(mekax, tmp_path, example, monkeypatch):
    entry = Entry("-", "example", ("mnist",))
    monkeypatch.setattr(reproductions.registry, "REPRODUCTIONS", {"x-y": entry})
    full = mekax("reproduce", "x-y", "--out", str(tmp_path / "full"))
    assert full.exit_code == 2
    assert "prepared dataset 'mnist'" in full.output
    quick = mekax("reproduce", "x-y", "--quick", "--out", str(tmp_path / "quick"))
    assert "digits stand in" in quick.output
    assert len(example) == 1
