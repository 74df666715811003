import json
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from mekax.experiments import checkpoints, compare, files, program, schedule, training
from mekax.experiments.optimizer_specs import parse
from mekax.experiments.runs import Run

STEPS = 60
COMPARE = "compare digits-logistic --optimizers meka adam:1e-3 sgd --epochs 2 --seeds 2 --out"

# The command line, but with a checkpoint at every look, and killed in one run after some steps:
# as soon as a checkpoint is whole, or `delay` seconds after it was begun.
RUN_KILLED = """
import os, signal, sys, threading, time
from mekax.experiments import checkpoints
label, seed, steps, delay = sys.argv.pop(1).split(",")
offer = checkpoints.Checkpoints.offer
def kill():
    os.kill(os.getpid(), signal.SIGKILL)
def offer_and_die(self, run, carry):
    self._due = 0.0
    now = run.spec.label == label and run.seed == int(seed) and run.steps >= int(steps)
    if now and float(delay):
        threading.Timer(float(delay), kill).start()
    offer(self, run, carry)
    if now:
        time.sleep(600) if float(delay) else kill()
checkpoints.Checkpoints.offer = offer_and_die
from mekax.experiments.cli import main
main()
"""


class StoppedError(Exception):
    pass


@pytest.fixture
def often(monkeypatch):
    """Checkpoints at every look at the clock."""
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "_SHARE", 1e9)


@pytest.fixture
def trained(parabola, tmp_path, often):
    """Train, continuing from what there is; stopped after so many steps, like a killed program."""
    compiled = program.compile_program(parabola, "momentum", 4)

    def run_it(stop=None, report=pytest.fail):
        run = Run("parabola", parse("momentum:0.1"), 3)

        def watch():
            if run.steps == stop:
                raise StoppedError

        kept = checkpoints.Checkpoints(tmp_path, run, report)
        budget = schedule.of_epochs(STEPS // 6, 6, 20)
        try:
            training.train(run, parabola, compiled, budget, watch, kept)
        except StoppedError:
            return run, kept
        kept.remove()
        return run, kept

    return run_it


def newest(folder):
    return sorted(folder.glob("checkpoint/*/*"), key=lambda path: int(path.name))


def damage(checkpoint):
    for file in checkpoint.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def assert_same(run, other):
    assert run.steps == other.steps
    for name in ("loss", "step_size"):
        np.testing.assert_array_equal(run.record(name), other.record(name))
    assert [(e.step, e.values) for e in run.evaluations] == [
        (e.step, e.values) for e in other.evaluations
    ]


def test_a_stopped_run_continues(trained, tmp_path):
    whole, _ = trained()
    trained(stop=42)
    assert [path.name for path in newest(tmp_path)] == ["39", "42"]
    resumed, _ = trained()
    assert_same(resumed, whole)
    assert np.all(np.diff(resumed.record("seconds")) > 0)
    assert not list(tmp_path.iterdir())


def test_a_damaged_checkpoint_gives_way_to_the_one_before(trained, tmp_path):
    whole, _ = trained()
    trained(stop=42)
    damage(newest(tmp_path)[-1])
    said = []
    resumed, _ = trained(report=said.append)
    assert_same(resumed, whole)
    assert len(said) == 1
    assert "checkpoint at step 42 is damaged" in said[0]


def test_without_a_good_checkpoint_the_run_starts_over(trained, tmp_path):
    whole, _ = trained()
    trained(stop=42)
    for checkpoint in newest(tmp_path):
        damage(checkpoint)
    said = []
    resumed, _ = trained(report=said.append)
    assert_same(resumed, whole)
    assert len(said) == 2


def test_a_changed_number_is_noticed(trained, tmp_path, monkeypatch):
    whole, _ = trained()
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "_checksum", lambda tree: 1)
        trained(stop=42)
    said = []
    resumed, _ = trained(report=said.append)
    assert_same(resumed, whole)
    assert len(said) == 2


def test_restored_state_is_of_the_same_kind(trained, tmp_path, parabola):
    run, kept = trained(stop=9)
    fresh = program.compile_program(parabola, "momentum", 4).start(3, 0.1)
    restored = kept.restore(Run("parabola", run.spec, 3), fresh)
    assert jax.tree.structure(restored) == jax.tree.structure(fresh)
    for one, other in zip(jax.tree.leaves(restored), jax.tree.leaves(fresh), strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.committed == other.committed
    assert int(restored.count) == 9


def test_saving_is_rare(parabola, tmp_path):
    run = Run("parabola", parse("sgd:0.1"), 3)
    compiled = program.compile_program(parabola, "sgd", 4)
    kept = checkpoints.Checkpoints(tmp_path, run)
    training.train(run, parabola, compiled, schedule.of_epochs(2, 6, 20), checkpoints=kept)
    assert not list(tmp_path.iterdir())


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "checkpoint" / "mine").mkdir(parents=True)
    checkpoints.Checkpoints(tmp_path, Run("parabola", parse("sgd:0.1"), 3)).remove()
    assert (tmp_path / "checkpoint" / "mine").is_dir()


def test_killed_comparison_continues(mekax, comparison, tmp_path):
    out = str(tmp_path / "out")
    env = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    arguments = [*COMPARE.split(), out]
    for point, done in (("meka,0,20,0.03", 0), ("meka,1,15,0", 3)):
        process = subprocess.run(
            [sys.executable, "-c", RUN_KILLED, point, *arguments, "--resume"],
            env=env,
            capture_output=True,
            text=True,
        )
        assert process.returncode == -signal.SIGKILL, process.stderr
        content = json.loads((tmp_path / "out" / "results.json").read_text())
        assert content["status"] == "running"
        assert len(content["runs"]) == done
    assert newest(tmp_path / "out")
    result = mekax(*arguments, "--resume")
    assert result.exit_code == 0, result.output
    assert "runs that are done: 3" in result.output
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert content["status"] == "finished"
    assert len(content["resumed"]) == 2
    assert [untimed(run) for run in content["runs"]] == [untimed(run) for run in comparison.runs]
    for run in content["runs"]:
        assert np.all(np.diff(run["records"]["seconds"]) > 0)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {path.name for path in comparison.out.iterdir()}


def untimed(run):
    run = {name: value for name, value in run.items() if "seconds" not in name}
    for curves in ("evaluations", "records"):
        run[curves] = {name: value for name, value in run[curves].items() if name != "seconds"}
    return run


@pytest.fixture
def fast(monkeypatch, parabola):
    """A problem that takes no time, under a known name."""
    monkeypatch.setattr(compare.problems, "load", lambda name, source: parabola)
    return "compare digits --epochs 2 --optimizers sgd momentum --out"


def test_interrupted_comparison_continues(mekax, fast, tmp_path, monkeypatch, often):
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert mekax(*fast.split(), str(whole)).exit_code == 0
    real = training.train

    def train(run, problem, program, budget, watch, checkpoints):
        def interrupt():
            watch()
            if run.spec.kind == "momentum" and run.steps > 5:
                raise KeyboardInterrupt

        real(run, problem, program, budget, interrupt, checkpoints)

    with monkeypatch.context() as patched:
        patched.setattr(compare, "train", train)
        result = mekax(*fast.split(), str(out))
    assert result.exit_code == 130
    assert "--resume" in result.output
    refused = mekax(*fast.split(), str(out))
    assert refused.exit_code == 2
    assert "Add --resume" in refused.output
    result = mekax(*fast.split(), str(out), "--resume")
    assert result.exit_code == 0, result.output
    ours, theirs = (json.loads((f / "results.json").read_text())["runs"] for f in (out, whole))
    assert [untimed(run) for run in ours] == [untimed(run) for run in theirs]


def test_finished_comparison_is_only_shown_again(mekax, fast, tmp_path, monkeypatch):
    out = tmp_path / "out"
    first = mekax(*fast.split(), str(out), "--resume")
    assert "Nothing to continue" in first.output
    before = json.loads((out / "results.json").read_text())
    (out / "overview.png").unlink()
    (out / "checkpoint" / "digits-sgd-0.1-seed-0").mkdir(parents=True)
    monkeypatch.setattr(compare, "train", pytest.fail)
    second = mekax(*fast.split(), str(out), "--resume")
    assert second.exit_code == 0, second.output
    after = json.loads((out / "results.json").read_text())
    assert after["runs"] == before["runs"]
    assert first.output.splitlines()[-6:] == second.output.splitlines()[-6:]
    assert (out / "overview.png").exists()
    assert not (out / "checkpoint").exists()


@pytest.mark.parametrize(
    ("part", "message"), [("device", "kind was toaster"), ("problems", "examples was 7, is now 24")]
)
def test_other_circumstances_are_refused(part, message, mekax, fast, tmp_path, often):
    out = tmp_path / "out"
    assert mekax(*fast.split(), str(out)).exit_code == 0
    content = json.loads((out / "results.json").read_text())
    content["runs"].pop()
    if part == "device":
        content["device"]["kind"] = "toaster"
    else:
        content["problems"]["digits"]["examples"] = 7
    files.write_json(out / "results.json", content)
    result = mekax(*fast.split(), str(out), "--resume")
    assert result.exit_code == 2
    assert message in result.output
    kept = json.loads((out / "results.json").read_text())["runs"]
    assert kept == content["runs"]


def test_stale_checkpoints_are_not_taken(trained, mekax, fast, tmp_path, often):
    trained(stop=42)
    (folder,) = (tmp_path / "checkpoint").iterdir()
    folder.rename(folder.with_name("digits-momentum-0.1-seed-0"))
    result = mekax(*fast.split(), str(tmp_path), "--resume")
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "results.json").read_text())
    assert {run["steps"] for run in content["runs"]} == {12}
