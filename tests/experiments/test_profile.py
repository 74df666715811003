import io
import json
import math
import os

import jax
import pytest
from mekax.experiments import profile as package
from mekax.experiments.profile import (
    backpack,
    communication,
    process,
    recording,
    report,
    run,
    steps,
    timing,
    workloads,
)
from mekax.experiments.profile.parts import MODELS, PARTS, Part, parts
from rich.console import Console

NAMES = sorted({name for table in PARTS.values() for part in table for name in part.optimizers})
PART = Part("mlp", 4, 8, ("adam",))


def row(optimizer="adameka", batch_size=128, to_adam=1.5, model="mlp", memory=300.0):
    return {
        "model": model,
        "parameters": 1000,
        "batch_size": batch_size,
        "device_peak": math.nan,
        "optimizer": optimizer,
        "rounds": 3,
        "seconds": to_adam / 1000,
        **{"seconds_to_adam": to_adam, "low": to_adam, "high": to_adam},
        **{"compile_seconds": 2.0, "compile_seconds_to_adam": 2.5},
        **{"stablehlo_lines": 900, "stablehlo_lines_to_adam": 4.5},
        **{"memory": memory, "memory_to_adam": memory / 200},
    }


def cells(text):
    """Lines of Markdown tables without what aligns them."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]


def run_quietly(folder, *tables, quick=True):
    out = io.StringIO()
    console = Console(file=out, width=160)
    done = run.profile(folder, console=console, tables=tables, quick=quick, rounds=3)
    return done, out.getvalue()


def test_the_command_line_knows_every_table():
    assert set(package.TABLES) == PARTS.keys() | run.OTHERS.keys()


@pytest.mark.parametrize("name", NAMES)
def test_every_step_can_go_on_from_where_it_stopped(name):
    workload, step = workloads.load("mlp", 4), steps.find(name)
    carry = jax.eval_shape(lambda: step.start(workload))
    batch = workload.batch(16)
    after = jax.eval_shape(lambda carry: step.make(workload, carry, batch), carry)
    assert jax.tree.structure(after) == jax.tree.structure(carry)
    for old, new in zip(jax.tree.leaves(carry), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_one_loss_per_example(name):
    workload = workloads.load(name)
    params = jax.eval_shape(workload.init, jax.random.key(0))
    assert jax.eval_shape(workload.losses, params, workload.batch(3)).shape == (3,)
    assert workload.parameters() == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_the_widths_are_those_of_the_growth_curve():
    sizes = [workloads.load("mlp", part.width).parameters() for part in parts("parameters")]
    assert [f"{size:.0e}" for size in sizes] == ["1e+04", "9e+04", "9e+05", "1e+07"]


def test_measures_relative_to_adam(monkeypatch):
    pace = {"adam": [1.0, 2.0, 3.0], "sgd": [0.5, 1.0, 3.0]}
    sizes = {"adam": (2.0, 400, 200), "sgd": (1.0, 300, 100)}
    names = ("compile_seconds", "stablehlo_lines", "memory")
    compiled = {
        name: (iter(pace[name]).__next__, dict(zip(names, sizes[name], strict=True)))
        for name in pace
    }
    monkeypatch.setattr(timing, "compile_loop", lambda part, name: compiled[name])
    adam, sgd = timing.measure(PART._replace(optimizers=("sgd",)), 3)
    assert (adam["optimizer"], adam["seconds_to_adam"], adam["memory_to_adam"]) == ("adam", 1, 1)
    assert [sgd[f"{name}_to_adam"] for name in names] == [0.5, 0.75, 0.5]
    # Rounds are compared with each other: a machine that slows down changes nothing.
    assert (sgd["seconds"], sgd["seconds_to_adam"], sgd["stablehlo_lines"]) == (1.0, 0.5, 300)
    assert (sgd["low"], sgd["high"], sgd["rounds"]) == (0.5, 0.75, 3)


def test_what_takes_long_is_measured_less_often(monkeypatch):
    clocks = {name: lambda: 1.0 for name in ("adam", "slow")}
    monkeypatch.setattr(timing, "_PATIENCE", 0.0)
    times = timing.in_turns(clocks, 5)
    assert [len(times[name]) for name in clocks] == [5, 3]


def test_times_a_loop():
    seconds, size = timing.compile_loop(PART, "adam")
    assert 0 < seconds() < 1
    assert not size["memory"] <= 4 * workloads.load("mlp", 4).parameters()
    assert size["stablehlo_lines"] > 100


def test_judges_by_large_batches():
    rows = [row(batch_size=n, to_adam=t) for n, t in ((32, 9.0), (128, 1.2), (512, 1.4))]
    assert report.medians(rows).to_dict("index") == {
        "adameka": {
            "seconds_to_adam": pytest.approx(1.3),
            "compile_seconds_to_adam": 2.5,
            "stablehlo_lines_to_adam": 4.5,
            "memory_to_adam": 1.5,
        }
    }


def test_tables_show_what_was_measured():
    rows = [row("adam", to_adam=1.0), row(), row(model="cnn", to_adam=2.5)]
    text = report.document({"models": rows, "chunks": [row("meka", memory=math.nan)]})
    assert ["adameka", "1.50", "2.50", "2.00"] in cells(text)
    assert ["time to compile", "mlp, 128", "cnn, 128", "median, batch ≥ 128"] in cells(text)
    assert ["lines of StableHLO", "mlp, 128", "cnn, 128", "median, batch ≥ 128"] in cells(text)
    assert ["adameka", "4.50", "4.50", "4.50"] in cells(text)
    assert ["adam", "2.0", ""] in cells(text)
    assert ["meka", "mlp", "1,000", "128", "1.5", "1.50", "", ""] in cells(text)
    assert "peak on the device" not in text


@pytest.mark.parametrize("table", ["parameters", "batch"])
def test_no_heading_hides_another(table):
    heading = cells(report.document({table: [row("adam", to_adam=1.0)]}))[4]
    assert heading[:4] == ["optimizer", "model", "parameters", "batch"]


def test_what_was_measured_survives_an_interrupt(tmp_path, monkeypatch):
    def measure(part, rounds):
        if part not in parts("models", quick=True):
            raise KeyboardInterrupt
        return [row("adam", to_adam=1.0)]

    monkeypatch.setattr(timing, "measure", measure)
    assert not run_quietly(tmp_path, "models", "chunks")[0]
    content = json.loads((tmp_path / report.NUMBERS).read_text())
    assert content["tables"]["models"][0]["optimizer"] == "adam"
    assert ["adam", "1.00", "1.00"] in cells((tmp_path / report.DOCUMENT).read_text())


def test_draws(tmp_path):
    rows = [row("adam", n, 1.0) for n in (32, 128)] + [row(memory=math.nan)]
    report.draw({"models": rows, "parameters": rows}, tmp_path)
    assert (tmp_path / report.PICTURE).stat().st_size > 5_000
    report.draw({}, tmp_path)


def test_a_cpu_has_no_peak_to_tell():
    assert math.isnan(timing.device_peak(PART, "adam"))
    assert math.isnan(timing.peak_of_training(PART, "adam"))


def test_the_peak_is_that_of_a_process_of_its_own(monkeypatch):
    def told(function, part, optimizer, environment):
        assert (function, part, optimizer) == (timing.peak_of_training, PART, "adam")
        assert environment == {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        return 5_000_000

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(timing, "in_new_process", told)
    measured = {**row(), "device_peak": timing.device_peak(PART, "adam")}
    text = report.document({"models": [measured]})
    assert ["peak on the device, MB", "mlp, 128"] in cells(text)
    assert ["adameka", "5"] in cells(text)


def test_a_training_that_does_not_fit_costs_its_peak_alone(tmp_path, monkeypatch):
    def failed(part, optimizer):
        raise RuntimeError("Traceback\nout of memory")

    monkeypatch.setattr(timing, "device_peak", failed)
    monkeypatch.setattr(timing, "measure", lambda *args: [row("adam", to_adam=1.0)])
    done, text = run_quietly(tmp_path, "models")
    assert done
    assert "The peak of adam was not measured: out of memory" in text
    assert ["adam", "1.00", "1.00"] in cells(text)


def test_another_process_has_its_own_environment_and_passes_on_errors():
    assert process.in_new_process(os.getpid, environment={}) != os.getpid()
    with pytest.raises(ValueError, match="invalid literal"):
        process.in_new_process(int, "x", environment={})


def test_variances_of_another_framework_are_measured_where_it_is_installed(tmp_path, monkeypatch):
    def missing(quick, rounds):
        raise RuntimeError("it needs pip install torch backpack-for-pytorch")

    size = {"parameters": 1000, "batch_size": 128, "milliseconds": 2.0}
    found = {"library": "peer", **size, "to_gradient": 2.5, "low": 2.0, "high": 3.0}
    monkeypatch.setitem(run.OTHERS, "BackPACK", lambda quick, rounds: [found])
    done, text = run_quietly(tmp_path, "BackPACK")
    assert done
    assert ["peer", "1,000", "128", "2", "2.50 (2.00–3.00)"] in cells(text)
    monkeypatch.setitem(run.OTHERS, "BackPACK", missing)
    done, text = run_quietly(tmp_path, "BackPACK")
    assert done
    assert "BackPACK was not measured: it needs pip install torch" in text


def test_both_frameworks_compute_the_same(monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("backpack")
    monkeypatch.setattr(timing, "_SECONDS", 0.0)
    assert [found["library"] for found in backpack.measure(True, 1)] == ["BackPACK", "mekax"]


def test_what_recording_costs():
    (found,) = recording.measure(True, 3)
    assert found["milliseconds"] > 0
    assert found["milliseconds_recorded"] > 0
    assert 100 < found["bytes"] < 1000


PROGRAM = """
  %all-reduce.1 = f32[] all-reduce(%x), channel_id=1
  %all-reduce.2 = (f32[2,3]{1,0}, bf16[4]{0}) all-reduce(%y, %z), channel_id=2
  %gather = f32[8]{0} all-gather-start(%w), channel_id=3
  %add = f32[100]{0} add(%a, %b)
"""


def test_bytes_are_read_off_a_program():
    assert communication.collective_bytes(PROGRAM) == (3, 4 + (24 + 8) + 32)
    assert communication.collective_bytes("%add = f32[100]{0} add(%a, %b)") == (0, 0)


def test_adam_sends_its_gradient_and_adameka_hardly_more(tmp_path):
    done, text = run_quietly(tmp_path, "communication")
    assert done
    sent = {line[0]: line[1:] for line in cells(text) if len(line) == 6}
    assert sent["adam"][0] == "55,050"
    assert float(sent["adam"][-1]) == pytest.approx(1.0, abs=1e-3)
    assert float(sent["adameka"][-1]) == pytest.approx(1.0, abs=1e-2)
