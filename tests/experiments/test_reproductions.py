import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from mekax.experiments import reproductions
from mekax.experiments.reproductions import Claim, Entry, Reproduction


@pytest.fixture
def example(monkeypatch):
    """Put an example in the place of the real ones; returns what it was called with."""
    calls = []

    def run(out, quick, seeds):
        calls.append((out, quick, seeds))
        claims = [
            Claim("the slope is at most −0.8", -0.95, (-1.0, -0.9), True),
            Claim("the ratio is at least 50", 20.0, None, not quick),
        ]
        return Reproduction({"dimension": 2}, {"x": np.arange(2), "y": math.inf}, claims)

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
    assert content["data"] == {"x": [0, 1], "y": None}
    assert content["claims"][0] == {
        "statement": "the slope is at most −0.8",
        "measured": -0.95,
        "interval": [-1.0, -0.9],
        "holds": True,
    }
    assert content["versions"]["jax"]
    again = mekax("reproduce", "x-y", "--out", str(out))
    assert again.exit_code == 2
    assert "without earlier results" in again.output


def test_a_claim_that_does_not_hold_fails(mekax, tmp_path, example):
    result = mekax("reproduce", "x-y", "--quick", "--out", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert "does not hold" in result.output
    assert example[0][1:] == (True, 10)
