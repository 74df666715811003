import io
import json
import math
import os
import sys
from functools import partial

import jax
import pandas as pd
import pytest
from mekax.experiments import profile as package
from mekax.experiments.models import MLP
from mekax.experiments.profile import backpack, communication, recording, report, run, timing
from mekax.experiments.profile.run import PARTS
from mekax.experiments.profile.steps import MODELS, STEPS, Model
from mekax.experiments.profile.timing import Part
from rich.console import Console

PART = Part("mlp", 8, ("adam", "sgd"), width=4)
CHUNKS = ("exact", "32", "128", "512")  # as good as chunks of 8
TINY = Model(MLP((2,), 2), (3,))


def row(optimizer="adameka", batch_size=128, to_adam=1.5, model="mlp", memory=300.0, **more):
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
        **more,
    }


def frame(*rows):
    return pd.DataFrame(rows)


def cells(text):
    """Lines of Markdown tables without what aligns them."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]


def run_quietly(folder, *tables):
    out = io.StringIO()
    console = Console(file=out, width=160)
    done = run.profile(folder, console=console, command=[], tables=tables, quick=True, rounds=3)
    return done, out.getvalue()


def test_the_command_line_knows_every_table():
    assert set(package.TABLES) == PARTS.keys() | run.OTHERS.keys()


def test_all_that_is_compared_exists():
    parts = [part for table in PARTS.values() for part in table]
    assert {name for part in parts for name in part.optimizers} == STEPS.keys()
    assert {part.model for part in parts} == MODELS.keys()
    sizes = [part.load().parameters() for part in PARTS["parameters"]]
    assert [f"{size:.0e}" for size in sizes] == ["1e+04", "9e+04", "9e+05", "1e+07"]


@pytest.mark.parametrize("name", [name for name in STEPS if name.rpartition(" ")[2] not in CHUNKS])
def test_every_step_can_go_on_from_where_it_stopped(name):
    step = STEPS[name]
    carry = jax.eval_shape(lambda: step.start(TINY))
    batch = jax.eval_shape(lambda: TINY.batch(16))
    after = jax.eval_shape(lambda carry, batch: step.make(TINY, carry, batch), carry, batch)
    assert jax.tree.structure(after) == jax.tree.structure(carry)
    for old, new in zip(jax.tree.leaves(carry), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_one_loss_per_example(name):
    model = MODELS[name]
    params = jax.eval_shape(model.init, jax.random.key(0))
    batch = jax.eval_shape(lambda: model.batch(3))
    assert jax.eval_shape(model.losses, params, batch).shape == (3,)


def test_measures_relative_to_adam(monkeypatch):
    pace = {"adam": [1.0, 2.0, 3.0], "sgd": [0.5, 1.0, 3.0]}
    sizes = {"adam": (2.0, 400, 200), "sgd": (1.0, 300, 100)}
    names = ("compile_seconds", "stablehlo_lines", "memory")
    compiled = {
        name: (iter(pace[name]).__next__, dict(zip(names, sizes[name], strict=True)))
        for name in pace
    }
    monkeypatch.setattr(timing, "compile_loop", lambda part, name: compiled[name])
    adam, sgd = timing.measure(PART, 3).to_dict("records")
    assert (adam["optimizer"], adam["seconds_to_adam"], adam["memory_to_adam"]) == ("adam", 1, 1)
    assert [sgd[f"{name}_to_adam"] for name in names] == [0.5, 0.75, 0.5]
    # Rounds are compared with each other: a machine that slows down changes nothing.
    assert (sgd["seconds"], sgd["seconds_to_adam"], sgd["stablehlo_lines"]) == (1.0, 0.5, 300)
    assert (sgd["low"], sgd["high"], sgd["rounds"]) == (0.5, 0.75, 3)


def test_what_takes_long_is_measured_less_often(monkeypatch):
    monkeypatch.setattr(timing, "_PATIENCE", 0.0)
    times = timing.in_turns({"adam": lambda: 1.0, "slow": lambda: 1.0}, 5)
    assert times.count().to_dict() == {"adam": 5, "slow": 3}


def test_times_a_loop(monkeypatch):
    monkeypatch.setattr(timing, "_SECONDS", 0.0)
    seconds, size = timing.compile_loop(PART, "adam")
    assert 0 < seconds() < 1
    assert not size["memory"] <= 4 * PART.load().parameters()
    assert size["stablehlo_lines"] > 100
    assert math.isnan(timing.device_peak(PART, "adam"))  # a CPU has none to tell


def test_judges_by_large_batches():
    rows = [row(batch_size=n, to_adam=t) for n, t in ((32, 9.0), (128, 1.2), (512, 1.4))]
    assert report.medians(frame(*rows)).to_dict("index") == {
        "adameka": {
            "seconds_to_adam": pytest.approx(1.3),
            "compile_seconds_to_adam": 2.5,
            "stablehlo_lines_to_adam": 4.5,
            "memory_to_adam": 1.5,
        }
    }


def test_tables_show_what_was_measured():
    rows = [row("adam", to_adam=1.0), row(), row(model="cnn", to_adam=2.5)]
    chunks = frame(row("meka", memory=math.nan, low=1.25, high=2.0))
    text = report.document({"models": frame(*rows), "chunks": chunks})
    assert ["adameka", "1.50", "2.50", "2.00"] in cells(text)
    assert ["time to compile", "mlp, 128", "cnn, 128", "median, batch ≥ 128"] in cells(text)
    assert ["lines of StableHLO", "mlp, 128", "cnn, 128", "median, batch ≥ 128"] in cells(text)
    assert ["adameka", "4.50", "4.50", "4.50"] in cells(text)
    assert ["adam", "2.00", ""] in cells(text)
    assert ["meka", "mlp", "1,000", "128", "1.5", "1.5", "1.25", "2", "", ""] in cells(text)
    assert "peak on the device" not in text


def test_what_was_measured_survives_an_interrupt(tmp_path, monkeypatch):
    def measure(part, rounds):
        if part not in run.quick_parts("models"):
            raise KeyboardInterrupt
        return frame(row("adam", to_adam=1.0))

    monkeypatch.setattr(timing, "measure", measure)
    assert not run_quietly(tmp_path, "models", "chunks")[0]
    content = json.loads((tmp_path / report.NUMBERS).read_text())
    assert content["tables"]["models"][0]["optimizer"] == "adam"
    assert content["medians"]["adam"]["seconds_to_adam"] == 1.0
    assert ["adam", "1.00", "1.00"] in cells((tmp_path / report.DOCUMENT).read_text())


def test_draws(tmp_path):
    rows = frame(row("adam", 32, 1.0), row("adam", 128, 1.0), row(memory=math.nan))
    report.draw({"models": rows, "batch": rows}, tmp_path)
    assert (tmp_path / report.PICTURE).stat().st_size > 5_000


def test_the_peak_is_that_of_a_process_of_its_own(monkeypatch):
    def told(function, part, optimizer):
        assert (function, part, optimizer) == (timing.peak_of_training, PART, "adam")
        return 5_000_000

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(timing, "in_new_process", told)
    peak = timing.device_peak(PART, "adam")
    text = report.document({"models": frame(row(device_peak=peak))})
    assert ["peak on the device, MB", "mlp, 128"] in cells(text)
    assert ["adameka", "5.00"] in cells(text)


def test_a_training_that_does_not_fit_costs_its_peak_alone(tmp_path, monkeypatch):
    def failed(part, optimizer):
        raise RuntimeError("Traceback\nout of memory")

    monkeypatch.setattr(timing, "device_peak", failed)
    monkeypatch.setattr(timing, "measure", lambda *args: frame(row("adam", to_adam=1.0)))
    done, text = run_quietly(tmp_path, "models")
    assert done
    assert "The peak of adam was not measured: out of memory" in text
    assert ["adam", "1.00", "1.00"] in cells(text)


def test_variances_of_another_framework_are_measured_where_it_is_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(backpack, "mlp", lambda width: TINY)
    monkeypatch.setattr(timing, "_SECONDS", 0.0)
    monkeypatch.setitem(sys.modules, "torch", None)
    done, text = run_quietly(tmp_path, "BackPACK")
    assert done
    assert "BackPACK was not measured: it needs pip install torch" in text
    monkeypatch.setattr(backpack, "_theirs", partial(backpack._ours, TINY))
    done, text = run_quietly(tmp_path, "BackPACK")
    assert done
    sizes = [line[:3] for line in cells(text) if "128" in line]
    assert sizes == [["BackPACK", "14", "128"], ["mekax", "14", "128"]]


def test_both_frameworks_compute_the_same(monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("backpack")
    monkeypatch.setattr(timing, "_SECONDS", 0.0)
    assert list(backpack.measure(True, 1).library) == ["BackPACK", "mekax"]


def test_what_recording_costs(monkeypatch):
    monkeypatch.setattr(recording, "mlp", lambda width: TINY)
    monkeypatch.setattr(timing, "_SECONDS", 0.0)
    (found,) = recording.measure(True, 3).to_dict("records")
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
    before = dict(os.environ)
    done, text = run_quietly(tmp_path, "communication")
    assert done
    assert os.environ == before
    sent = {line[0]: line[1:] for line in cells(text) if len(line) == 6}
    assert sent["adam"] == ["55,050", "128", "1", "220,200", "1"]
    assert float(sent["adameka"][-1]) == pytest.approx(1.0, abs=1e-2)
