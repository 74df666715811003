"""`mekax benchmark`: jobs that are shared, killed, continued, and carried by other backends."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import optax
import pytest
from mekax.experiments import cli, registry, results
from mekax.experiments.benchmark import claims, job, run, speed, suite
from mekax.experiments.errors import UsageError
from mekax.experiments.registry import OPTIMIZERS

SMALL = "benchmark quadratic --profile smoke --batch-size 32 --optimizers sgd adameka dowg --out"
ITERATES = {"sgd": {"last"}, "dowg": {"last"}, "adameka": {"last", "average"}}

# The command line, but killed: at a call of progress, with a job unwritten, or half written.
RUN_KILLED = """
import os, signal, sys
from mekax.experiments import results
from mekax.experiments.benchmark import job
point, count = sys.argv.pop(1).split(",")
left = int(count)
def kill():
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
train, write, replace = job._train, results.write_json, results.Path.replace
if point == "progress":
    def watched(job, problem, kept, progress):
        return train(job, problem, kept, lambda now: (progress(now), kill()))
    job._train = watched
if point in ("jobs", "checkpoint"):
    def written(path, content):
        if point in path.parts:
            kill()
        write(path, content)
    results.write_json = written
if point == "replace":
    def replaced(self, target):
        if "jobs" in target.parts:
            self.write_text(self.read_text()[:100])
            kill()
        return replace(self, target)
    results.Path.replace = replaced
from mekax.experiments.cli import main
main()
"""

# The command line of one of two processes: begins when both are there, and logs what it does.
RUN_SHARED = """
import os, sys, time
from pathlib import Path
from mekax.experiments import results
from mekax.experiments.benchmark import run as benchmark
folder = Path(sys.argv.pop(1))
write, run = results.write_json, benchmark._run
def logged(path, content):
    if "jobs" in path.parts:
        with (folder / "log").open("a") as file:
            file.write(f"{os.getpid()} {path.stem}\\n")
    write(path, content)
def together(*arguments):
    (folder / f"ready-{os.getpid()}").touch()
    while len(list(folder.glob("ready-*"))) < 2:
        time.sleep(0.01)
    return run(*arguments)
results.write_json, benchmark._run = logged, together
from mekax.experiments.cli import main
main()
"""


@pytest.fixture(scope="module")
def env(tmp_path_factory):
    return {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def run_it(env, *words, script="from mekax.experiments.cli import main; main()", status=0):
    command = [sys.executable, "-c", script, *map(str, words)]
    process = subprocess.run(command, env=env, capture_output=True, text=True)
    assert process.returncode == status, process.stdout + process.stderr
    return process


@pytest.fixture(scope="module")
def whole(tmp_path_factory, env):
    """A benchmark from begin to end in one process."""
    out = tmp_path_factory.mktemp("whole") / "out"
    return out, run_it(env, *SMALL.split(), out, "--jobs", "1").stdout


def contents(out):
    """Every job, without what depends on the clock."""
    found = {}
    for path in sorted((out / "jobs").glob("*/*.json")):
        content = json.loads(path.read_text(), parse_constant=pytest.fail)
        for name in ("timing", "compile_seconds"):
            content.pop(name)
        content["evaluations"].pop("seconds")
        for one in content["runs"]:
            one.pop("seconds")
        found[f"{path.parent.name}/{path.name}"] = content
    return found


def test_report(whole):
    out, text = whole
    assert {path.name for path in out.iterdir()} == {
        "benchmark.json",
        "benchmark.md",
        "summary.json",
        "ratios.png",
        "curves",
        "jobs",
        "claims",
        "checkpoint",
    }
    assert not [*(out / "claims").iterdir(), *(out / "checkpoint").iterdir()]
    assert (out / "curves" / "quadratic-32.png").stat().st_size > 10_000
    assert "quadratic · batch 32 · 40 steps · dowg: done (3 of 3" in text
    assert "The sweep of sgd: 15 settings" in text
    document = (out / "benchmark.md").read_text()
    for label in ("sgd default", "sgd best", "adameka+average", "dowg"):
        assert f"| {label}" in document
    content = json.loads((out / "summary.json").read_text(), parse_constant=pytest.fail)
    workload = content["workloads"]["quadratic-32"]
    assert workload["best_baseline"] == "sgd best"
    assert workload["rows"]["sgd best"]["to_best"]["mean"] == 1
    assert workload["rows"]["adameka"]["final"]["train_loss"]["mean"] > 0


def test_jobs(whole):
    found = contents(whole[0])
    assert [path.partition("/")[2] for path in found] == ["adameka.json", "dowg.json", "sgd.json"]
    for content in found.values():
        evaluations = content["evaluations"]
        assert set(evaluations["iterate"]) == ITERATES[content["optimizer"]]
        assert set(evaluations["step"]) == {10, 20, 30, 40}
        counts = Counter(zip(evaluations["run"], evaluations["iterate"], strict=True))
        assert set(counts.values()) == {4}
    runs = found["quadratic-32/sgd.json"]["runs"]
    counts = Counter(run["seed"] for run in runs)
    assert counts[0] == 15  # the sweep at one seed; the default and the best at both
    assert counts[1] in (1, 2)
    rates = sorted({run["setting"]["learning_rate"] for run in runs})
    assert rates == [3e-3, 0.1, 1.0, 3.0, 10.0]  # both neighbors of the best, 3
    assert "step_size" in found["quadratic-32/adameka.json"]["evaluations"]


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_killed_benchmark_continues(whole, env, tmp_path):
    out = tmp_path / "out"
    done = []
    for point in ("progress,3", "checkpoint,2", "jobs,1", "replace,1", "jobs,2"):
        words = (point, *SMALL.split(), out, "--jobs", "1")
        run_it(env, *words, script=RUN_KILLED, status=-signal.SIGKILL)
        done.append(len(contents(out)))
    assert done == [0, 0, 0, 0, 1]
    words = ("never,0", *SMALL.split(), out, "--jobs", "1")
    process = run_it(env, *words, script=RUN_KILLED)
    assert "Continuing: 1 of 3 jobs are finished." in process.stdout
    assert contents(out) == contents(whole[0])


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_a_killed_job_continues_within(whole, env, tmp_path):
    """Checkpoints are of jobs as well; here at every chance."""
    often = RUN_KILLED.replace(
        "from mekax.experiments.cli",
        "from mekax.experiments import checkpoint\n"
        "checkpoint.SECONDS, checkpoint._SHARE = 0.0, 1e9\n"
        "from mekax.experiments.cli",
    )
    out = tmp_path / "out"
    words = (*SMALL.split(), out, "--jobs", "1")
    run_it(env, "progress,4", *words, script=often, status=-signal.SIGKILL)
    assert list(out.glob("checkpoint/quadratic-32-sgd-*/sweep/group-0/*"))
    run_it(env, "never,0", *words, script=often)
    assert contents(out) == contents(whole[0])
    assert not list(out.glob("checkpoint/*"))


@pytest.mark.skipif(os.name == "nt", reason="identities of processes of Unix")
def test_two_processes_share_the_work(whole, env, tmp_path):
    out = tmp_path / "out"
    words = (str(tmp_path), *SMALL.split(), str(out), "--jobs", "1")
    command = [sys.executable, "-c", RUN_SHARED, *words]
    processes = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    texts = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    log = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(line[1] for line in log) == ["adameka", "dowg", "sgd"]
    assert len({line[0] for line in log}) == 2
    assert all("Report:" in text for text in texts)
    assert contents(out) == contents(whole[0])


@pytest.mark.parametrize("backend", ["loky", "dask"])
def test_processes_share_the_work(whole, env, tmp_path, backend):
    if backend == "dask":
        pytest.importorskip("distributed")
    out = tmp_path / "out"
    script = "from mekax.experiments.cli import main\nif __name__ == '__main__':\n    main()"
    file = tmp_path / "main.py"  # dask starts its processes from a file
    file.write_text(script)
    words = (*SMALL.split(), out, "--jobs", "2", "--backend", backend)
    command = [sys.executable, str(file), *map(str, words)]
    process = subprocess.run(command, env=env, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr
    assert contents(out) == contents(whole[0])


def test_claims(tmp_path):
    claim = tmp_path / "claims" / "one"
    assert claims.take(claim)
    assert not claims.take(claim)  # this process is alive
    claim.write_text(f"{claims.platform.node()} 999999999")
    assert claims.take(claim)  # that one is not
    claim.write_text("elsewhere 1")
    assert not claims.take(claim)
    old = time.time() - 2 * claims.FOREIGN
    os.utime(claim, (old, old))
    assert claims.take(claim)


@pytest.fixture
def fast(monkeypatch, parabola):
    """A problem that takes no time, under a known name."""
    monkeypatch.setattr(registry, "load", lambda name, source: parabola)
    monkeypatch.setattr(speed, "clock", lambda *arguments: lambda: 1.0)
    job._load.cache_clear()
    yield (
        "benchmark quadratic --profile smoke --batch-size 4 --jobs 1 --optimizers momo_adam dowg "
        "--out"
    )
    job._load.cache_clear()


def test_finished_benchmark_is_only_shown_again(mekax, fast, tmp_path, monkeypatch):
    out = tmp_path / "out"
    first = mekax(*fast.split(), str(out))
    assert first.exit_code == 0, first.output
    before = contents(out)
    (out / "benchmark.md").unlink()
    (out / "curves" / "quadratic-4.png").unlink()
    monkeypatch.setattr(run, "do", pytest.fail)
    second = mekax(*fast.split(), str(out))
    assert second.exit_code == 0, second.output
    assert contents(out) == before
    assert (out / "benchmark.md").exists()
    assert (out / "curves" / "quadratic-4.png").exists()


def test_optimizers_are_added_later(mekax, fast, tmp_path):
    out = tmp_path / "out"
    assert mekax(*fast.split(), str(out)).exit_code == 0
    kept = (out / "jobs" / "quadratic-4" / "momo_adam.json").stat()
    result = mekax(*fast.replace("dowg", "prodigy").split(), str(out))
    assert result.exit_code == 0, result.output
    assert "Continuing: 1 of 2" in result.output
    assert (out / "jobs" / "quadratic-4" / "momo_adam.json").stat() == kept


def test_jobs_of_other_code_are_done_again(mekax, fast, tmp_path, monkeypatch):
    out = tmp_path / "out"
    words = fast.replace("dowg", "ei-momentum")
    assert mekax(*words.split(), str(out)).exit_code == 0
    monkeypatch.setattr(job, "our_code", lambda: "other")
    result = mekax(*words.split(), str(out))
    assert "Continuing: 1 of 2" in result.output
    assert "done (2 of 2)" in result.output
    codes = {job["optimizer"]: job["inputs"]["code"] for job in contents(out).values()}
    assert codes == {"momo_adam": None, "ei-momentum": "other"}


def test_damaged_jobs_are_done_again(mekax, fast, tmp_path):
    out = tmp_path / "out"
    assert mekax(*fast.split(), str(out)).exit_code == 0
    before = contents(out)
    path = out / "jobs" / "quadratic-4" / "dowg.json"
    path.write_text(path.read_text()[:100])
    assert mekax(*fast.split(), str(out)).exit_code == 0
    assert contents(out) == before


def test_interrupted_benchmark_continues(mekax, fast, tmp_path, monkeypatch):
    out, real = tmp_path / "out", job._train

    def interrupted(mine, *arguments):
        if mine.optimizer == "dowg":
            raise KeyboardInterrupt
        return real(mine, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(job, "_train", interrupted)
        result = mekax(*fast.split(), str(out))
    assert result.exit_code == cli.INTERRUPTED
    assert "1 of 2 jobs are finished" in result.output.replace("\n", " ")
    assert f"--out {out}" in result.output
    assert not (out / "benchmark.md").exists()
    result = mekax(*fast.split(), str(out))
    assert result.exit_code == 0, result.output
    assert "Continuing: 1 of 2" in result.output


def test_other_device_is_refused(mekax, fast, tmp_path, monkeypatch):
    assert mekax(*fast.split(), str(tmp_path)).exit_code == 0
    monkeypatch.setattr(results, "device", lambda: {"platform": "toaster"})
    result = mekax(*fast.split(), str(tmp_path))
    assert result.exit_code == 2
    assert "is now toaster" in result.output


def test_divergence_is_reported(mekax, fast, tmp_path, monkeypatch):
    sgd = optax.with_extra_args_support(optax.sgd(1e9))
    away = dataclasses.replace(OPTIMIZERS["dowg"], build=lambda setting, steps: sgd)
    monkeypatch.setitem(OPTIMIZERS, "dowg", away)
    result = mekax(*fast.split(), str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "2 of 2 diverged" in (tmp_path / "benchmark.md").read_text()


def test_profiles_are_sound():
    for profile in suite.PROFILES.values():
        for workload in suite.workloads(profile):
            assert workload.steps % profile.evaluations == 0
        assert profile.sweep_seeds <= profile.seeds
        for optimizer in registry.group("baseline"):
            found = suite.settings(profile, optimizer)
            assert optimizer.default in found
            grid = {one["learning_rate"] for one in optimizer.settings}
            rates = {one["learning_rate"] for one in found}
            assert len(rates) - min(profile.rates, len(grid)) in (0, 1)
            assert {*suite.LADDER} > grid >= rates > {min(grid), max(grid)}
        names = [one.name for one in suite.workloads(profile)]
        assert len({*names}) == len(names)
    assert len(suite.workloads(suite.PROFILES["standard"])) == 23


def test_every_quick_problem_has_a_full_size():
    """Itself, or the one larger problem that is named after it, for ten times the steps."""
    full = suite.PROFILES["full"].sizes
    for profile in ("equations", "packages"):
        quick = suite.PROFILES[profile].sizes
        for problem, size in quick.items():
            named = [other for other in full if f"{other}-".startswith(f"{problem}-")]
            (found,) = {*named} - (quick.keys() - {problem})
            assert full[found].steps == {batch: 10 * n for batch, n in size.steps.items()}


def test_names_tell_the_steps_where_nothing_else_does():
    profile = suite.PROFILES["horizons"]
    found = suite.workloads(profile, ["regression", "digits"], ["all", 32])
    assert [one.name for one in found] == [
        *(f"{problem}-{size}-{steps}"
          for problem, sizes in (("digits", (1438, 32)), ("regression", (256, 32)))
          for size in sizes
          for steps in (200, 2000, 20000)),
    ]  # fmt: skip
    assert {one.batch_size for one in found if one.problem == "regression"} == {32, 256}
    profile = suite.PROFILES["standard"]
    assert suite.workloads(profile, ["mnist"], ["all"])[0].batch_size == 16_384
    steps = [suite.workloads(profile, ["text"], [size])[0].steps for size in (8, 32, 511, 512, 999)]
    assert steps == [600, 600, 600, 50, 50]
    # A batch size that is all examples is not there twice.
    assert len(suite.workloads(suite.PROFILES["horizons"], ["regression"], ["all", 256])) == 3


def test_a_sweep_goes_on_until_the_best_is_inside():
    """Whatever the best rate is: the loss of a rate is its distance from the best."""
    grid = suite.settings(suite.PROFILES["smoke"], OPTIMIZERS["adam"])
    for best in (2e-6, 3e-6, 1e-3, 2e-2, 5.0, 30.0, 100.0):
        tried, distance = [*grid], lambda one, best=best: abs(math.log(one["learning_rate"] / best))
        while more := suite.further(tried, [min(tried, key=distance)]):
            tried += more
        found, rates = min(tried, key=distance), {one["learning_rate"] for one in tried}
        assert found["learning_rate"] == min(
            suite.LADDER, key=lambda rate: abs(math.log(rate / best))
        )
        assert suite.is_at_edge(tried, found) == (best in (2e-6, 3e-6, 30.0, 100.0))
        assert len(tried) == len({tuple(one.values()) for one in tried}) <= 3 * len(rates)
        assert set(suite.LADDER) >= rates


def test_edges_of_a_sweep():
    tried = [{"learning_rate": rate} for rate in (0.1, 1.0, 10.0)]
    assert [suite.is_at_edge(tried, one) for one in tried] == [True, False, True]
    assert not suite.is_at_edge(tried[:1], tried[0])


def test_out_is_made_last(tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'sgd'"):
        run.check(optimizers=["sdg"], out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_backend_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr(run.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs the package distributed"):
        run.check(["digits"], profile="smoke", backend="dask")
