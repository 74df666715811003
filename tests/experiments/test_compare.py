import json

import numpy as np
import pytest
from mekax.experiments import compare, files, training

MEASURES = {"train_loss", "test_loss", "test_accuracy"}


def by(comparison, optimizer, seed):
    (run,) = [r for r in comparison.runs if (r["optimizer"], r["seed"]) == (optimizer, seed)]
    return run


def test_report(comparison):
    content = comparison.content
    assert content["schema"] == compare.SCHEMA
    assert content["status"] == "finished"
    assert content["settings"]["optimizers"] == ["meka", "adam:0.001", "sgd:0.1"]
    assert set(files.PACKAGES) < set(content["versions"])
    assert content["device"]["platform"]
    assert content["problems"]["digits-logistic"]["steps"] == 2 * (1438 // 64)
    assert len(comparison.runs) == 6
    assert {run["status"] for run in comparison.runs} == {"finished"}


def test_curves_are_complete(comparison):
    for run in comparison.runs:
        evaluations, records = run["evaluations"], run["records"]
        assert set(evaluations) > MEASURES
        assert evaluations["step"][0] == 0
        assert evaluations["step"][-1] == run["steps"] == 44
        assert len(evaluations["step"]) >= 21
        assert len({len(values) for values in evaluations.values()}) == 1
        assert records["step"] == list(range(1, 45))
        assert {len(v) for k, v in records.items() if k != "stride"} == {44}
        assert np.all(np.diff(records["seconds"]) > 0)
        assert run["seconds"] == records["seconds"][-1]


def test_gauges_are_recorded(comparison):
    ours = by(comparison, "meka", 0)["records"]
    assert {"step_size", "step_size_std", "curvature", "gain", "slope_ratio"} < set(ours)
    theirs = by(comparison, "adam:0.001", 0)["records"]
    assert theirs["step_size"] == pytest.approx([1e-3] * 44)


def test_seeds_are_paired(comparison):
    first = {seed: by(comparison, "meka", seed) for seed in (0, 1)}
    for seed, ours in first.items():
        theirs = by(comparison, "sgd:0.1", seed)
        assert ours["evaluations"]["train_loss"][0] == theirs["evaluations"]["train_loss"][0]
        assert ours["records"]["loss"][0] == pytest.approx(theirs["records"]["loss"][0], rel=1e-5)
    assert first[0]["records"]["loss"][0] != first[1]["records"]["loss"][0]


def test_compiled_once_per_optimizer(comparison):
    for run in comparison.runs:
        assert (run["compile_seconds"] > 0) == (run["seed"] == 0)


def test_table_and_figures(comparison):
    for word in ("adam:0.001", "test accuracy", "95 % bootstrap", "steps/s"):
        assert word in comparison.text
    assert {path.name for path in comparison.out.iterdir()} == {
        "results.json",
        "overview.png",
        "train_loss_steps.png",
        "train_loss_seconds.png",
        "test_accuracy.png",
        "step_size.png",
        "curvature.png",
        "gain.png",
    }


def test_interrupt_in_the_second_run(mekax, tmp_path, monkeypatch):
    real = training.train

    def train(run, problem, program, budget, watch, checkpoints):
        def interrupt():
            watch()
            if run.spec.kind == "momentum" and run.steps > 5:
                raise KeyboardInterrupt

        real(run, problem, program, budget, interrupt, checkpoints)

    monkeypatch.setattr(compare, "train", train)
    words = "compare digits-logistic --epochs 1 --optimizers sgd momentum adam --out"
    result = mekax(*words.split(), str(tmp_path / "out"))
    assert result.exit_code == 130
    assert "(interrupted)" in result.output
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert content["status"] == "interrupted"
    assert [run["status"] for run in content["runs"]] == ["finished", "interrupted"]
    assert content["runs"][1]["steps"] > 5


def test_divergence_and_sweep(mekax, tmp_path, monkeypatch, parabola):
    monkeypatch.setattr(compare.problems, "load", lambda name, source: parabola)
    words = "compare digits --epochs 40 --optimizers sgd:0.1 sgd:50 --seeds 2 --tune --out"
    result = mekax(*words.split(), str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    content = json.loads(
        (tmp_path / "out" / "results.json").read_text(), parse_constant=pytest.fail
    )
    assert "diverged" in result.output
    assert {r["status"] for r in content["runs"] if r["optimizer"] == "sgd:50"} == {"diverged"}
    (sweep,) = content["tuning"]["digits"]
    assert sweep["kind"] == "sgd"
    assert len(sweep["learning_rates"]) == len(compare.grid("sgd")) + 1
    losses = [x if x is not None else np.inf for x in sweep["train_losses"]]
    assert sweep["best"] == f"sgd:{sweep['learning_rates'][int(np.argmin(losses))]:g}"
    assert sweep["seconds"] == pytest.approx(sum(run["seconds"] for run in content["runs"]))
    assert f"sgd best of {len(losses)}" in result.output
