"""A problem in a file of the user's own: the one of docs/problems.md, and bad ones."""

import json
import re
from pathlib import Path

import pytest
from mekax.experiments import registry

PAGE = (Path(__file__).parents[2] / "docs" / "problems.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    monkeypatch.setattr(registry, "PROBLEMS", dict(registry.PROBLEMS))


def test_the_example_of_the_docs_trains(mekax, tmp_path):
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    file, out = tmp_path / "pendulum.py", tmp_path / "out"
    file.write_text(code)
    words = ["compare", str(file), "--optimizers", "adameka", "--out", str(out)]
    result = mekax(*words)
    assert result.exit_code == 0, result.output
    (run,) = json.loads((out / "results.json").read_text())["runs"]
    measured = run["evaluations"]
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
    mine = {"neural_ode", "regularized_ode", "continuous_flow"}
    expected = {name for name, entry in registry.PROBLEMS.items() if entry.module in mine}
    assert expected <= named
    for target in re.findall(r"\]\((\.\./[^)#]+)\)", PAGE):
        assert (Path(__file__).parents[2] / "docs" / target).exists(), target
