"""The command that draws loss against evaluations; the trainings are those of other tests."""

import json

from click.testing import CliRunner
from mekax.experiments import ode_tradeoff


def test_command(tmp_path, monkeypatch):
    def points(order, size):
        return [
            ode_tradeoff.Point(order, weight, seed, 0.1 + weight, 0.9, 50 - order - 9 * weight)
            for weight in size.weights
            for seed in range(size.seeds)
        ]

    monkeypatch.setattr(ode_tradeoff, "points", points)
    words = ["--quick", "--out", str(tmp_path)]
    result = CliRunner().invoke(ode_tradeoff.main, words)
    assert result.exit_code == 0, result.output
    assert "| 3 | 1 | 0 | 1.100 | 10.0 % | 38.0 |" in result.output
    content = json.loads((tmp_path / "ode_tradeoff.json").read_text())
    assert len(content["points"]) == 6
    assert content["points"][1]["weight"] == 0.01
    assert (tmp_path / "ode_tradeoff.png").stat().st_size > 10_000
    again = CliRunner().invoke(ode_tradeoff.main, words)
    assert again.exit_code != 0
    assert "without earlier results" in again.output
