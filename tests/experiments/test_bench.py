import dataclasses
import io
import json
import subprocess
import types

import jax
import jax.numpy as jnp
import pytest
from mekax.experiments.bench import (
    backpack,
    cases,
    contenders,
    device_peak,
    measure,
    plan,
    report,
    run,
)
from rich.console import Console

NAMES = sorted({name for part in plan.parts() for name in part.contenders})


def measured(contender="adameka", batch_size=128, to_adam=1.5, case="mlp", memory=300):
    return measure.Measured(
        case=case,
        parameters=1000,
        batch_size=batch_size,
        contender=contender,
        seconds=to_adam / 1000,
        to_adam=to_adam,
        low=to_adam,
        high=to_adam,
        rounds=3,
        compile_seconds=2.0,
        compile_to_adam=2.5,
        stablehlo_lines=900,
        lines_to_adam=4.5,
        memory=memory,
        memory_to_adam=None if memory is None else memory / 200,
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_contender_can_go_on_from_where_it_stopped(name):
    case = cases.mlp(4)
    init, step = contenders.contender(name)(case)

    def begin(key):
        params = case.init(key)
        return params, init(params), jnp.zeros(())

    carry = jax.eval_shape(begin, jax.random.key(0))
    after = jax.eval_shape(step, carry, case.batch(16))
    assert jax.tree.structure(after) == jax.tree.structure(carry)
    for old, new in zip(jax.tree.leaves(carry), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)


@pytest.mark.parametrize("name", cases.CASES)
def test_every_case_has_one_loss_per_example(name):
    case = cases.CASES[name]()
    params = jax.eval_shape(case.init, jax.random.key(0))
    assert jax.eval_shape(case.losses, params, case.batch(3)).shape == (3,)
    assert case.parameters() == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_the_widths_are_those_of_the_growth_curve():
    sizes = [cases.mlp(p.width).parameters() for p in plan.parts() if p.table == "parameters"]
    assert [f"{size:.0e}" for size in sizes] == ["1e+04", "9e+04", "9e+05", "1e+07"]


def test_measures_relative_to_adam(monkeypatch):
    pace = {"adam": [1.0, 2.0, 3.0], "sgd": [0.5, 1.0, 3.0]}
    compiled = {
        name: measure.Compiled(iter(seconds).__next__, *size)
        for (name, seconds), size in zip(
            pace.items(), ((2.0, 400, 200), (1.0, 300, 100)), strict=True
        )
    }
    monkeypatch.setattr(measure, "compile_loop", lambda case, batch_size, name: compiled[name])
    adam, sgd = measure.in_turns(cases.mlp(4), 8, ["sgd"], 3)
    assert (adam.contender, adam.to_adam, adam.memory_to_adam) == ("adam", 1.0, 1.0)
    assert (adam.compile_to_adam, adam.lines_to_adam) == (1.0, 1.0)
    assert (sgd.compile_to_adam, sgd.lines_to_adam, sgd.stablehlo_lines) == (0.5, 0.75, 300)
    # Rounds are compared with each other: a machine that slows down changes nothing.
    assert (sgd.seconds, sgd.to_adam, sgd.memory_to_adam) == (1.0, 0.5, 0.5)
    assert (sgd.low, sgd.high, sgd.rounds) == (0.5, 0.75, 3)


def test_times_a_loop():
    loop = measure.compile_loop(cases.mlp(4), 8, "adam")
    assert 0 < loop.seconds() < 1
    assert loop.memory is None or loop.memory > 4 * cases.mlp(4).parameters()
    assert loop.stablehlo_lines > 100


def test_judges_by_large_batches():
    rows = [measured(batch_size=n, to_adam=t) for n, t in ((32, 9.0), (128, 1.2), (512, 1.4))]
    assert report.medians(rows) == {
        "adameka": {"time": pytest.approx(1.3), "memory": 1.5, "compile": 2.5, "lines": 4.5}
    }


def test_tables_show_what_was_measured():
    rows = [measured("adam", to_adam=1.0), measured(), measured(case="cnn", to_adam=2.5)]
    text = report.document({plan.TABLE: rows, "chunks": [measured("meka", memory=None)]})
    assert "| adameka | 1.50 | 2.50 | 2.00 |" in text
    assert "| time to compile | mlp, 128 | cnn, 128 |" in text
    assert "| lines of StableHLO | mlp, 128 | cnn, 128 |" in text
    assert "| adameka | 4.50 | 4.50 | 4.50 |" in text
    assert "| meka | mlp | 1,000 | 128 | 1.5 | 1.50 |  |  |" in text


def test_what_was_measured_survives_an_interrupt(tmp_path, monkeypatch):
    def in_turns(case, batch_size, names, rounds):
        if names != plan.parts(quick=True)[0].contenders:
            raise KeyboardInterrupt
        return [measured("adam", to_adam=1.0)]

    monkeypatch.setattr(run, "in_turns", in_turns)
    assert not run.bench(tmp_path, True, 3, Console(quiet=True), ["mekax", "bench"])
    content = json.loads((tmp_path / report.NUMBERS).read_text())
    assert content["tables"][plan.TABLE][0]["contender"] == "adam"
    assert "| adam | 1.00 |" in (tmp_path / report.DOCUMENT).read_text()


def test_draws(tmp_path):
    rows = [measured("adam", n, 1.0) for n in (32, 128)] + [measured(memory=None)]
    report.draw({plan.TABLE: rows, "parameters": rows}, tmp_path)
    assert (tmp_path / report.PICTURE).stat().st_size > 5_000


PART = plan.Part(plan.TABLE, "mlp", 4, 8, ("adam",))


def test_a_cpu_has_no_peak_to_tell(capsys):
    assert device_peak.of_part(PART, "adam") is None
    device_peak.main("mlp", "4", "8", "adam")
    assert capsys.readouterr().out == "null\n"


def test_the_peak_is_that_of_a_process_of_its_own(monkeypatch):
    def told(command, env, **options):
        assert command[1:] == ["-m", device_peak.__name__, "mlp", "4", "8", "adam"]
        assert env["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
        return subprocess.CompletedProcess(command, 0, "a warning\n5000000\n", "")

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(device_peak, "subprocess", types.SimpleNamespace(run=told))
    peak = device_peak.of_part(PART, "adam")
    assert peak == 5_000_000
    row = dataclasses.replace(measured(), device_peak=peak)
    assert "| adameka | 5 MB |" in report.document({plan.TABLE: [row]})


def test_a_training_that_does_not_fit_costs_its_peak_alone(tmp_path, monkeypatch):
    def failed(command, **options):
        return subprocess.CompletedProcess(command, 1, "", "Traceback\nout of memory\n")

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(device_peak, "subprocess", types.SimpleNamespace(run=failed))
    monkeypatch.setattr(run, "in_turns", lambda *args: [measured("adam", to_adam=1.0)])
    out = io.StringIO()
    assert run.bench(tmp_path, True, 3, Console(file=out), [])
    assert "the peak of adam was not measured: out of memory" in out.getvalue()
    assert "| adam | 1.00 |" in out.getvalue()


def test_peers_of_another_framework_are_measured_where_they_are_installed(tmp_path, monkeypatch):
    rows = [backpack.Compared(name, 1000, 128, 0.002, 2.5, 2.0, 3.0) for name in ("mekax", "peer")]
    monkeypatch.setattr(backpack, "in_turns", lambda rounds: rows)
    for installed, told in ((True, "ours and theirs"), (False, "pip install torch backpack")):
        monkeypatch.setattr(backpack, "installed", lambda installed=installed: installed)
        out = io.StringIO()
        folder = tmp_path / str(installed)
        folder.mkdir()
        assert run.bench(folder, False, 3, Console(file=out), [], (plan.BACKPACK,))
        assert told in out.getvalue().replace("\n", " ")
        assert ("| peer | 1,000 | 128 | 2 | 2.50 (2.00–3.00) |" in out.getvalue()) == installed


@pytest.mark.skipif(not backpack.installed(), reason="PyTorch and BackPACK are not installed")
def test_peers_compute_the_same(monkeypatch):
    monkeypatch.setattr(backpack, "_SECONDS", 0.0)
    monkeypatch.setattr(backpack, "_WIDTHS", (4,))
    assert [row.library for row in backpack.in_turns(1)] == ["mekax", "BackPACK"]
