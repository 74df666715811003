import json
import os
import signal
import subprocess
import sys
from collections import Counter

import jax
import jax.numpy as jnp
import optax
import pytest
from mekax.experiments import cli, lanes
from mekax.experiments.benchmark import methods, options, run, store, suite, work

SMALL = "benchmark quadratic --profile smoke --batch-size 32 --methods sgd adameka dowg --out"
PLACES = {"sgd": {"last"}, "dowg": {"last"}, "adameka": {"last", "average"}}

# The command line, but killed: at a call of progress, with a unit unwritten, or half written.
RUN_KILLED = """
import os, signal, sys
from mekax.experiments import files
from mekax.experiments.benchmark import store, work
point, count = sys.argv.pop(1).split(",")
left = int(count)
def kill():
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
write, replace, do = store.Store.write, files.Path.replace, work._Bench.do
if point == "progress":
    def watched(self, unit, progress):
        return do(self, unit, lambda part: (progress(part), kill()))
    work._Bench.do = watched
if point == "write":
    store.Store.write = lambda *arguments: (kill(), write(*arguments))
if point == "replace":
    def replaced(self, target):
        if target.parent.parent.name == "units":
            self.write_text(self.read_text()[:100])
            kill()
        return replace(self, target)
    files.Path.replace = replaced
from mekax.experiments.cli import main
main()
"""

# The command line of one of two processes: begins when both are there, and logs what it does.
RUN_SHARED = """
import os, sys, time
from pathlib import Path
from mekax.experiments.benchmark import run, store, work
folder = Path(sys.argv.pop(1))
write, real = store.Store.write, work.work
def logged(self, unit, content):
    with (folder / "log").open("a") as file:
        file.write(f"{os.getpid()} {unit.cell.name} {unit.method}\\n")
    write(self, unit, content)
def together(*arguments):
    (folder / f"ready-{os.getpid()}").touch()
    while len(list(folder.glob("ready-*"))) < 2:
        time.sleep(0.01)
    return real(*arguments)
store.Store.write, run.work = logged, together
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


@pytest.fixture(scope="module")
def whole(tmp_path_factory, env):
    """A benchmark from begin to end in one process."""
    out = tmp_path_factory.mktemp("whole") / "out"
    main = "from mekax.experiments.cli import main; main()"
    command = [sys.executable, "-c", main, *SMALL.split(), str(out)]
    result = subprocess.run(command, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return out, result.stdout


def contents(out):
    """Every unit, timings apart."""
    found = {}
    for path in sorted((out / "units").glob("*/*.json")):
        content = json.loads(path.read_text(), parse_constant=pytest.fail)
        content.pop("timing")
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
        "units",
        "locks",
    }
    assert (out / "curves" / "quadratic-32.png").stat().st_size > 10_000
    assert "quadratic · batch 32 · dowg: done (3 of 3" in text
    assert "The sweep of sgd: 9 settings" in text
    document = (out / "benchmark.md").read_text()
    for label in ("sgd default", "sgd best", "adameka+average", "dowg"):
        assert f"| {label}" in document
    content = json.loads((out / "summary.json").read_text(), parse_constant=pytest.fail)
    rows = content["cells"]["quadratic-32"]["rows"]
    assert content["cells"]["quadratic-32"]["best_baseline"] == "sgd best"
    assert rows["sgd best"]["to_best"]["mean"] == 1
    assert rows["adameka"]["final"]["train_loss"]["mean"] > 0


def test_units(whole):
    found = contents(whole[0])
    assert [path.partition("/")[2] for path in found] == ["adameka.json", "dowg.json", "sgd.json"]
    for unit in found.values():
        assert {r["place"] for r in unit["runs"]} == PLACES[unit["method"]]
        for record in unit["runs"]:
            assert record["looks"] == [10, 20, 30, 40]
            assert {len(values) for values in record["measures"].values()} == {4}
    counts = Counter(r["seed"] for r in found["quadratic-32/sgd.json"]["runs"])
    assert counts == {0: 9, 1: 2}  # the grid at one seed; the default and the best at both
    ours = [r for r in found["quadratic-32/adameka.json"]["runs"] if r["place"] == "last"]
    assert all(len(r["gauges"]["step_size"]) == 4 for r in ours)


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_killed_benchmark_continues(whole, env, tmp_path):
    out = tmp_path / "out"
    done = []
    for point in ("progress,3", "write,1", "replace,1", "progress,15", "write,2"):
        process = subprocess.run(
            [sys.executable, "-c", RUN_KILLED, point, *SMALL.split(), str(out)],
            env=env,
            capture_output=True,
            text=True,
        )
        assert process.returncode == -signal.SIGKILL, process.stdout + process.stderr
        done.append(len(contents(out)))
    assert done == [0, 0, 0, 1, 2]
    command = [sys.executable, "-c", RUN_KILLED, "never,0", *SMALL.split(), str(out)]
    process = subprocess.run(command, env=env, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "Continuing: 2 of 3 units are finished." in process.stdout
    assert contents(out) == contents(whole[0])
    assert not list(out.glob("units/*/*.tmp"))


@pytest.mark.skipif(os.name == "nt", reason="locks of Unix")
def test_two_processes_share_the_work(whole, env, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-c", RUN_SHARED, str(tmp_path), *SMALL.split(), str(out)]
    processes = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    texts = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    log = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(line[2] for line in log) == ["adameka", "dowg", "sgd"]
    assert len({line[0] for line in log}) == 2
    assert all("Report:" in text for text in texts)
    assert contents(out) == contents(whole[0])


def test_jobs_share_the_work(whole, env, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-c", RUN_KILLED, "never,0", *SMALL.split(), str(out), "--jobs", "2"]
    process = subprocess.run(command, env=env, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert not process.stderr
    assert contents(out) == contents(whole[0])


@pytest.fixture
def fast(monkeypatch, parabola):
    """A problem that takes no time, under a known name."""
    monkeypatch.setattr(work.problems, "load", lambda name, source: parabola)
    monkeypatch.setattr(work.timing, "clock", lambda *arguments: lambda: 1.0)
    return "benchmark quadratic --profile smoke --batch-size 4 --methods momo_adam dowg --out"


def test_finished_benchmark_is_only_shown_again(mekax, fast, tmp_path, monkeypatch):
    out = tmp_path / "out"
    first = mekax(*fast.split(), str(out))
    assert first.exit_code == 0, first.output
    before = contents(out)
    (out / "benchmark.md").unlink()
    (out / "curves" / "quadratic-4.png").unlink()
    monkeypatch.setattr(work, "compile_lanes", pytest.fail)
    second = mekax(*fast.split(), str(out))
    assert second.exit_code == 0, second.output
    assert contents(out) == before
    assert (out / "benchmark.md").exists()
    assert (out / "curves" / "quadratic-4.png").exists()


def test_methods_are_added_later(mekax, fast, tmp_path):
    out = tmp_path / "out"
    assert mekax(*fast.split(), str(out)).exit_code == 0
    kept = (out / "units" / "quadratic-4" / "momo_adam.json").stat()
    words = fast.replace("dowg", "prodigy")
    result = mekax(*words.split(), str(out))
    assert result.exit_code == 0, result.output
    assert "Continuing: 1 of 2" in result.output
    assert (out / "units" / "quadratic-4" / "momo_adam.json").stat() == kept


def test_units_of_other_code_are_done_again(mekax, fast, tmp_path, monkeypatch):
    out = tmp_path / "out"
    words = fast.replace("dowg", "ei-momentum")
    assert mekax(*words.split(), str(out)).exit_code == 0
    monkeypatch.setattr(store, "our_code", lambda: "other")
    result = mekax(*words.split(), str(out))
    assert "Continuing: 1 of 2" in result.output
    codes = {unit["method"]: unit["inputs"]["code"] for unit in contents(out).values()}
    assert codes == {"momo_adam": None, "ei-momentum": "other"}


def test_interrupted_benchmark_continues(mekax, fast, tmp_path, monkeypatch):
    out, real = tmp_path / "out", work._Bench.do

    def do(self, unit, progress):
        if unit.method == "dowg":
            raise KeyboardInterrupt
        return real(self, unit, progress)

    with monkeypatch.context() as patched:
        patched.setattr(work._Bench, "do", do)
        result = mekax(*fast.split(), str(out))
    assert result.exit_code == cli.INTERRUPTED
    assert "1 of 2 units are finished" in result.output.replace("\n", " ")
    assert f"--out {out}" in result.output
    assert not (out / "benchmark.md").exists()
    result = mekax(*fast.split(), str(out))
    assert result.exit_code == 0, result.output
    assert "Continuing: 1 of 2" in result.output


def test_other_device_is_refused(mekax, fast, tmp_path, monkeypatch):
    assert mekax(*fast.split(), str(tmp_path)).exit_code == 0
    monkeypatch.setattr(run.files, "device", lambda: {"platform": "toaster"})
    result = mekax(*fast.split(), str(tmp_path))
    assert result.exit_code == 2
    assert "is now toaster" in result.output


def test_divergence_is_reported(mekax, fast, tmp_path, monkeypatch):
    away = optax.with_extra_args_support(optax.sgd(1e9))
    monkeypatch.setattr(methods, "_peer", lambda name: away)
    result = mekax(*fast.split(), str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "2 of 2 diverged" in (tmp_path / "benchmark.md").read_text()


@pytest.mark.parametrize("name", methods.KNOWN)
def test_every_method_can_be_called_alike(name, parabola):
    method, setting = methods.build(name), methods.settings(name, (0.01,))[0]

    def step(key):
        params = parabola.init(key)
        tx = method.build(setting, 10)
        one = lanes.one_step(parabola, tx)
        carry = lanes.Carry(params, tx.init(params), key, jnp.zeros((), jnp.int32))
        carry, _ = one(carry, parabola.data)
        return carry.params, [place(carry.state, carry.params) for place in method.places.values()]

    params, places = jax.eval_shape(step, jax.random.key(0))
    for place in places:
        assert jax.tree.structure(place) == jax.tree.structure(params)


def test_schedules():
    budget = 10
    grads = {"w": jnp.array(1.0)}
    for number, expected in enumerate(([1, 1], [1, 0.1], [1, 0.024472])):
        tx = methods._baseline("sgd", {"rate": 1.0, "schedule": float(number)}, budget)
        state = tx.init(grads)
        steps = []
        for _ in range(budget):
            updates, state = tx.update(grads, state, grads, value_fn=None, value=0.0)
            steps.append(-float(updates["w"]))
        assert [steps[0], steps[-1]] == pytest.approx(expected, rel=1e-3)


def test_profiles_are_sound():
    for profile in suite.PROFILES.values():
        for cell in suite.cells(profile):
            assert cell.steps % profile.looks == 0
        assert profile.sweep_seeds <= profile.seeds
        for kind in methods.BASELINES:
            rates = suite.rates(profile, kind)
            assert len(set(rates)) == profile.rates
    assert len(suite.cells(suite.PROFILES["standard"])) == 16


def test_out_is_made_last(tmp_path):
    with pytest.raises(options.UsageError, match="Did you mean 'sgd'"):
        options.check(methods=["sdg"], out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
