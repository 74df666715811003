"""`mekax compare`: what it records, shows, and continues after a stop."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from mekax.experiments import checkpoint, plots, registry, results, train
from mekax.experiments.compare import plan, run, tables
from rich.console import Console

MEASURES = {"train_loss", "test_loss", "test_accuracy"}
COMPARE = "compare digits-logistic --optimizers meka adam:1e-3 sgd --epochs 2 --seeds 2 --out"

# The command line, but with a checkpoint at every chance, and killed in one run after some steps:
# as soon as a checkpoint is whole, or `delay` seconds after it was begun.
RUN_KILLED = """
import os, signal, sys, threading, time
from mekax.experiments import checkpoint
name, seed, steps, delay = sys.argv.pop(1).split(",")
offer = checkpoint.Checkpoint.offer
def kill():
    os.kill(os.getpid(), signal.SIGKILL)
def offer_and_die(self, carry, now):
    self._due = 0.0
    mine = name in str(self._folder) and now.runs[0].seed == int(seed)
    if mine and now.step >= int(steps) and float(delay):
        threading.Timer(float(delay), kill).start()
    offer(self, carry, now)
    if mine and now.step >= int(steps):
        time.sleep(600) if float(delay) else kill()
checkpoint.Checkpoint.offer = offer_and_die
from mekax.experiments.cli import main
main()
"""


def by(comparison, optimizer, seed):
    jobs = comparison.jobs
    (job,) = [j for j in jobs if (j["optimizer"], j["runs"][0]["seed"]) == (optimizer, seed)]
    return job


def untimed(job):
    """What does not depend on the clock."""
    (run,) = job["runs"]
    return {
        "optimizer": job["optimizer"],
        "run": {name: value for name, value in run.items() if name != "seconds"},
        **{
            table: {name: values for name, values in job[table].items() if name != "seconds"}
            for table in ("evaluations", "steps")
        },
    }


def contents(out):
    jobs, damaged = results.jobs(out)
    assert not damaged
    return [untimed(job) for job in jobs]


def test_report(comparison):
    content = comparison.content
    assert content["schema"] == plan.SCHEMA
    assert content["status"] == "finished"
    assert content["settings"]["optimizers"] == ["meka", "adam:0.001", "sgd:0.1"]
    assert set(results.PACKAGES) < set(content["versions"])
    assert content["device"]["platform"]
    assert content["problems"]["digits-logistic"]["steps"] == 2 * (1438 // 64)
    assert len(comparison.jobs) == 6
    assert {job["runs"][0]["status"] for job in comparison.jobs} == {"finished"}


def test_curves_are_complete(comparison):
    for job in comparison.jobs:
        evaluations, steps, (run,) = job["evaluations"], job["steps"], job["runs"]
        assert set(evaluations) > MEASURES
        assert evaluations["step"][0] == 0
        assert evaluations["step"][-1] == run["steps"] == 44
        assert len(evaluations["step"]) >= 21
        assert steps["step"] == list(range(1, 45))
        assert np.all(np.diff(steps["seconds"]) > 0)
        assert run["seconds"] == steps["seconds"][-1]


def test_metrics_are_recorded(comparison):
    ours = by(comparison, "meka", 0)["steps"]
    assert {"step_size", "step_size_std", "curvature", "gain", "slope_ratio"} < set(ours)
    theirs = by(comparison, "adam", 0)["steps"]
    assert theirs["step_size"] == pytest.approx([1e-3] * 44)


def test_seeds_are_paired(comparison):
    ours = {seed: by(comparison, "meka", seed) for seed in (0, 1)}
    for seed, job in ours.items():
        theirs = by(comparison, "sgd", seed)
        assert job["evaluations"]["train_loss"][0] == theirs["evaluations"]["train_loss"][0]
        assert job["steps"]["loss"][0] == pytest.approx(theirs["steps"]["loss"][0], rel=1e-5)
    assert ours[0]["steps"]["loss"][0] != ours[1]["steps"]["loss"][0]


def test_compiled_once_per_optimizer(comparison):
    for job in comparison.jobs:
        assert (job["compile_seconds"] > 0) == (job["runs"][0]["seed"] == 0)


def test_table_and_figures(comparison):
    for word in ("adam:0.001", "test accuracy", "95 % bootstrap", "steps/s"):
        assert word in comparison.text
    assert {path.name for path in comparison.out.iterdir()} == {
        "jobs",
        "results.json",
        "overview.png",
        "train_loss_steps.png",
        "train_loss_seconds.png",
        "test_accuracy.png",
        "step_size.png",
        "curvature.png",
        "gain.png",
    }


def test_evaluations_fall_on_the_ends_of_epochs(parabola):
    asked = plan.check(epochs="3", out="out")
    problem = type("P", (), {"evaluations": 20, "examples": 7, "epochs": 1})
    assert run.eval_steps(asked, problem, 1) == tuple(range(22))
    problem.evaluations, problem.examples = 5, 100
    asked = plan.check(epochs="2", out="out")
    assert run.eval_steps(asked, problem, 1) == (0, 33, 67, 100, 133, 167, 200)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def often(monkeypatch):
    """Checkpoints after every chunk of steps."""
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "_SHARE", 1e9)


@pytest.fixture
def fast(monkeypatch, parabola):
    """A problem that takes no time, under a known name."""
    monkeypatch.setattr(registry, "load", lambda name, source: _renamed(parabola))
    return "compare digits --epochs 2 --optimizers sgd momentum --out"


def _renamed(problem):
    import dataclasses

    return dataclasses.replace(problem, name="digits")


def interrupting(monkeypatch):
    """Ctrl-C in the run of momentum, after some steps."""
    real = train.train

    def interrupted(problem, optimizer, runs, *, progress, **options):
        def tell(now):
            progress(now)
            if optimizer.name == "momentum" and now.step > 5:
                raise KeyboardInterrupt

        return real(problem, optimizer, runs, progress=tell, **options)

    monkeypatch.setattr(train, "train", interrupted)


def test_interrupted_comparison_continues(mekax, fast, tmp_path, monkeypatch, often):
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert mekax(*fast.split(), str(whole)).exit_code == 0
    with monkeypatch.context() as patched:
        interrupting(patched)
        result = mekax(*fast.split(), str(out))
    assert result.exit_code == 130
    assert "--resume" in result.output
    assert "(interrupted)" in result.output
    assert json.loads((out / "results.json").read_text())["status"] == "interrupted"
    statuses = [job["run"]["status"] for job in contents(out)]
    assert statuses == ["interrupted", "finished"]
    assert contents(out)[0]["run"]["steps"] > 5
    refused = mekax(*fast.split(), str(out))
    assert refused.exit_code == 2
    assert "Add --resume" in refused.output
    result = mekax(*fast.split(), str(out), "--resume")
    assert result.exit_code == 0, result.output
    assert "runs that are done: 1" in result.output
    assert contents(out) == contents(whole)
    assert not (out / run.CHECKPOINTS).exists()


def test_finished_comparison_is_only_shown_again(mekax, fast, tmp_path, monkeypatch):
    out = tmp_path / "out"
    first = mekax(*fast.split(), str(out), "--resume")
    assert "Nothing to continue" in first.output
    before = contents(out)
    (out / "overview.png").unlink()
    monkeypatch.setattr(train, "train", pytest.fail)
    second = mekax(*fast.split(), str(out), "--resume")
    assert second.exit_code == 0, second.output
    assert contents(out) == before
    assert first.output.splitlines()[-6:] == second.output.splitlines()[-6:]
    assert (out / "overview.png").exists()


@pytest.mark.parametrize(
    ("part", "message"), [("device", "kind was toaster"), ("problems", "examples was 7, is now 24")]
)
def test_other_circumstances_are_refused(part, message, mekax, fast, tmp_path):
    out = tmp_path / "out"
    assert mekax(*fast.split(), str(out)).exit_code == 0
    (out / "jobs" / "digits" / "sgd-0.1-seed-0.json").unlink()
    content = json.loads((out / "results.json").read_text())
    if part == "device":
        content["device"]["kind"] = "toaster"
    else:
        content["problems"]["digits"]["examples"] = 7
    results.write_json(out / "results.json", content)
    before = contents(out)
    result = mekax(*fast.split(), str(out), "--resume")
    assert result.exit_code == 2
    assert message in result.output
    assert contents(out) == before


def test_stale_checkpoints_are_not_taken(mekax, fast, tmp_path, monkeypatch, often):
    """Those of a comparison whose results are gone."""
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        interrupting(patched)
        mekax(*fast.split(), str(out))
    assert list((out / run.CHECKPOINTS).glob("digits-momentum*/*/*"))
    for path in out.rglob("*.json"):
        if path.name == "results.json" or "jobs" in path.parts:
            path.unlink()
    seen = []
    real = checkpoint.Checkpoint.restore
    monkeypatch.setattr(
        checkpoint.Checkpoint,
        "restore",
        lambda self, carry, now: seen.append(self._folder.is_dir()) or real(self, carry, now),
    )
    result = mekax(*fast.split(), str(out), "--resume")
    assert result.exit_code == 0, result.output
    assert seen == [False, False]


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_killed_comparison_continues(mekax, comparison, tmp_path):
    out = tmp_path / "out"
    env = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    arguments = [*COMPARE.split(), str(out)]
    for point, done in (("meka,0,20,0.03", 0), ("meka,1,15,0", 3)):
        process = subprocess.run(
            [sys.executable, "-c", RUN_KILLED, point, *arguments, "--resume"],
            env=env,
            capture_output=True,
            text=True,
        )
        assert process.returncode == -signal.SIGKILL, process.stderr
        assert json.loads((out / "results.json").read_text())["status"] == "running"
        assert len(contents(out)) == done
    assert list(out.glob("checkpoint/digits-logistic-meka-seed-1/*/*"))
    result = mekax(*arguments, "--resume")
    assert result.exit_code == 0, result.output
    assert "runs that are done: 3" in result.output
    content = json.loads((out / "results.json").read_text())
    assert content["status"] == "finished"
    assert len(content["resumed"]) == 2
    assert contents(out) == [untimed(job) for job in comparison.jobs]
    names = {path.name for path in out.iterdir()}
    assert names == {path.name for path in comparison.out.iterdir()}


def test_divergence_and_sweep(mekax, fast, tmp_path):
    words = "compare digits --epochs 40 --optimizers sgd:0.1 sgd:50 --seeds 2 --tune --out"
    out = tmp_path / "out"
    result = mekax(*words.split(), str(out))
    assert result.exit_code == 0, result.output
    content = json.loads((out / "results.json").read_text(), parse_constant=pytest.fail)
    assert "diverged" in result.output
    diverged = [j["run"]["status"] for j in contents(out) if 50.0 in j["run"]["setting"].values()]
    assert diverged == ["diverged"] * 2
    (sweep,) = content["tuning"]["digits"]
    assert sweep["optimizer"] == "sgd"
    assert len(sweep["learning_rates"]) == 7 + 1
    losses = [x if x is not None else np.inf for x in sweep["train_losses"]]
    assert sweep["best"] == f"sgd:{sweep['learning_rates'][int(np.argmin(losses))]:g}"
    jobs, _ = results.jobs(out)
    assert sweep["seconds"] == pytest.approx(sum(job["runs"][0]["seconds"] for job in jobs))
    assert f"sgd best of {len(losses)}" in result.output


# Tables and figures of odd values


def job(label, seed, losses, status="finished", sizes=(1.0, 2.0)):
    optimizer, setting = registry.parse(label)
    count, steps = len(losses), len(sizes)
    return results.plain(
        {
            "workload": "p", "problem": "p", "batch_size": 1, "optimizer": optimizer.name,
            "compile_seconds": 0.5,
            "runs": [
                {"setting": dict(setting), "seed": seed, "status": status,
                 "steps": steps, "seconds": 0.1 * steps}
            ],
            "evaluations": {
                "run": [0] * count, "iterate": ["last"] * count, "step": list(range(count)),
                "seconds": [0.1 * k for k in range(count)],
                "train_loss": losses, "test_loss": [2 * x for x in losses],
            },
            "steps": {
                "run": [0] * steps, "step": list(range(1, steps + 1)), "loss": [1.0] * steps,
                "seconds": [0.1 * k for k in range(1, steps + 1)], "step_size": list(sizes),
            },
        }
    )  # fmt: skip


def text_of(rows):
    console = Console(width=160, record=True)
    console.print(tables.summary_table("p", rows))
    return console.export_text()


def test_table_of_odd_values():
    nan = float("nan")
    rows = {
        "sgd:9": [job("sgd:9", 0, [1.0, nan], "diverged", sizes=[])],
        "sgd:0.1": [job("sgd", 0, [1.0, 0.5]), job("sgd", 1, [1.0, nan], "diverged")],
    }
    text = text_of(rows)
    assert "1 of 2 diverged" in text
    assert "0.5" in text
    assert "–" in text
    assert "1–2" in text


def test_interrupted_runs_count_only_alone():
    whole, part = job("sgd", 0, [1.0, 0.5]), job("sgd", 1, [1.0], "interrupted")
    assert tables.jobs_of([whole, part], "sgd:0.1") == [whole]
    assert tables.jobs_of([part], "sgd:0.1") == [part]
    assert "(interrupted)" in text_of({"sgd:0.1": [part]})


def test_sweep_takes_the_best_mean_and_no_diverged_seed():
    jobs = [
        *(job("sgd:0.1", seed, [1.0, 0.5]) for seed in (0, 1)),
        job("sgd:1", 0, [1.0, 0.1]),
        job("sgd:1", 1, [1.0, 0.2]),
        job("sgd:3", 0, [1.0, 0.0]),
        job("sgd:3", 1, [1.0, float("nan")], "diverged"),
    ]
    labels = ["sgd:0.1", "sgd:1", "sgd:3"]
    sweep = tables.sweep_result("sgd", labels, jobs, seeds=2)
    assert sweep["best"] == "sgd:1"
    assert sweep["seconds"] == pytest.approx(6 * 0.2)
    assert tables.sweep_result("sgd", labels, jobs, seeds=3) is None


def shown(label, jobs):
    return tables.to_draw(label, jobs)


def test_figures_survive_odd_values(tmp_path):
    nan = float("nan")
    rows = [
        shown("meka", [job("meka", 0, [1.0, 0.0], sizes=[0.0, 0.0])]),
        shown("sgd:9", [job("sgd:9", 0, [1.0, nan], "diverged", sizes=[nan, 1.0])]),
        shown("sgd", [job("sgd", 0, [1.0], "interrupted", sizes=[-1.0, 1.0])]),
    ]
    drawn = {path.name for path in plots.draw_comparison("p", rows, tmp_path / "new")}
    assert {"test_loss.png", "step_size.png", "overview.png"} <= drawn
    assert "test_accuracy.png" not in drawn


def test_curves_of_different_lengths_share_an_axis():
    frame = pd.DataFrame(
        {"seed": [0, 0, 0, 1, 1], "step": [0, 1, 2, 0, 1], "train_loss": [4.0, 2.0, 0.0, 4.0, 2.0]}
    )
    curve = plots.curve(frame, "train_loss")
    assert curve.x[-1] == 1
    np.testing.assert_allclose(curve.middle, curve.low)
    assert plots.curve(frame, "gain") is None


def test_noisy_curves_are_thinned():
    steps = np.arange(1, 1001)
    frame = pd.DataFrame({"seed": 0, "step": steps, "loss": steps % 2})
    curve = plots.curve(frame, "loss", thin=True)
    assert len(curve.x) == 100
    assert set(curve.middle) == {0.5}
