"""Results in files and tables, and the statistics on them."""

import json
import math
import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from mekax.experiments import results
from mekax.experiments.records import Records, Run

META = {"workload": "digits-32", "problem": "digits", "batch_size": 32}


def records(optimizer="adam", losses=((0.5, 0.4), (0.7, math.inf)), setting=None):
    setting = {"learning_rate": 0.1, "schedule": 0} if setting is None else setting
    runs = tuple(Run(setting, seed) for seed in range(len(losses)))
    rows = [(run, step, loss) for run, row in enumerate(losses) for step, loss in enumerate(row)]
    run, step, loss = (np.array(column) for column in zip(*rows, strict=True))
    evaluations = {
        "run": run,
        **{name: np.full(len(run), value) for name, value in setting.items()},
        "seed": run,
        "iterate": np.full(len(run), "last"),
        "step": 10 * (1 + step),
        "train_loss": np.float32(loss),
    }
    status = tuple("finished" if math.isfinite(row[-1]) else "diverged" for row in losses)
    clock = 0.1 * (1.0 + step)
    steps = {"run": run, "step": 1 + step, "seconds": clock, "loss": np.float32(loss)}
    return Records(optimizer, runs, status, 1.5, evaluations, steps)


def test_files_and_tables(tmp_path):
    results.write(tmp_path / "jobs" / "digits-32" / "adam.json", records(), META, per_step=True)
    results.write(tmp_path / "jobs" / "digits-32" / "meka.json", records("meka", setting={}), META)
    (tmp_path / "jobs" / "torn.json").write_text('{"optimizer": "a')
    contents, damaged = results.jobs(tmp_path)
    assert [content["optimizer"] for content in contents] == ["adam", "meka"]
    assert [path.name for path in damaged] == ["torn.json"]
    assert contents[0]["evaluations"]["train_loss"] == [0.5, 0.400000006, 0.699999988, None]
    table = results.read(tmp_path)
    assert len(table) == 8
    assert table["label"].tolist() == ["adam:0.1"] * 4 + ["meka"] * 4
    assert table["seed"].tolist() == [0, 0, 1, 1] * 2
    assert table["learning_rate"].tolist()[:4] == [0.1] * 4
    assert table["train_loss"].isna().sum() == 2
    steps = results.table(contents, "steps")
    assert steps["loss"].size == 4
    last = results.final(table)
    assert last["train_loss"].tolist() == pytest.approx([0.4, math.inf, 0.4, math.inf])


def test_long_runs_are_thinned(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "MAX_STEPS", 10)
    found = records(losses=(np.linspace(1, 0, 25),))
    results.write(tmp_path / "jobs" / "one.json", found, META, per_step=True)
    ((content,), _) = results.jobs(tmp_path)
    assert content["steps"]["step"] == list(range(1, 26, 3))
    assert len(content["evaluations"]["step"]) == 25


def test_parts_of_a_job_are_joined():
    """As if all runs had been trained at once."""
    whole = results.content(records(losses=((0.5, 0.4), (0.7, 0.6), (0.9, 0.8))))
    parts = [results.content(records(losses=losses)) for losses in (((0.5, 0.4),), ((0.7, 0.6),))]
    third = records(losses=((0.9, 0.8),), setting={"learning_rate": 0.3, "schedule": 1})
    found = results.joined([*parts, results.content(third)])
    assert found["evaluations"]["run"] == [0, 0, 1, 1, 2, 2]
    losses = found["evaluations"]["train_loss"]
    np.testing.assert_array_equal(losses, whole["evaluations"]["train_loss"])
    assert found["compile_seconds"] == 4.5
    table = results.table([found])
    assert table["label"].tolist() == ["adam:0.1"] * 4 + ["adam:0.3 linear"] * 2
    assert results.joined(parts[:1]) == results.plain(parts[0])


@pytest.mark.parametrize(
    "change",
    [
        {"evaluations": {"run": [0], "step": [1, 2]}},
        {"runs": [{"seed": 0}]},
        {"runs": 3},
        {"optimizer": None},
        {"steps": None},
    ],
)
def test_damage_is_told(tmp_path, change):
    path = tmp_path / "jobs" / "one.json"
    results.write(path, records(), META)
    assert results.read_job(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert results.read_job(path) is None


def test_writing_is_atomic(tmp_path, monkeypatch):
    path = tmp_path / "one.json"
    results.write_json(path, {"a": [np.float32(0.1), math.nan, {"b": (1, True)}]})
    before = path.read_text()
    assert json.loads(before) == {"a": [0.100000001, None, {"b": [1, True]}]}

    def crash(file):
        raise OSError("disk full")

    monkeypatch.setattr(results.os, "fsync", crash)
    with pytest.raises(OSError, match="disk full"):
        results.write_json(path, {})
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_programs_leave_is_removed(tmp_path):
    old, new = tmp_path / "one.json.host-1.tmp", tmp_path / "two.json.host-2.tmp"
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    results.remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == [new]


def test_every_float32_survives():
    values = np.random.default_rng(0).integers(0, 2**31, 10_000, dtype=np.int32).view(np.float32)
    values = values[np.isfinite(values)]
    back = np.float32(json.loads(json.dumps(results.plain(values))))
    np.testing.assert_array_equal(back, values)


class TestBootstrap:
    def test_agrees_with_the_normal_approximation(self):
        values = np.random.default_rng(0).normal(3.0, 2.0, 400)
        interval = results.bootstrap(values)
        assert interval.mean == pytest.approx(values.mean())
        half = 1.96 * values.std() / 20
        assert interval.high - interval.low == pytest.approx(2 * half, rel=0.05)
        assert interval == results.bootstrap(values)

    def test_one_value_and_equal_values(self):
        assert results.bootstrap([2.0]) == (2.0, 2.0, 2.0)
        assert results.bootstrap([2.0, 2.0]) == (2.0, 2.0, 2.0)

    @pytest.mark.parametrize("values", [[], [1.0, math.inf]])
    def test_refuses(self, values):
        with pytest.raises(ValueError, match="finite"):
            results.bootstrap(values)


class TestRatio:
    def test_is_geometric_and_paired(self):
        found = results.ratio({0: 1.0, 1: 8.0, 7: 1.0}, {1: 2.0, 0: 1.0, 5: 9.0})
        assert found == pytest.approx((2.0, 1.0, 4.0))

    @pytest.mark.parametrize(
        ("ours", "theirs", "expected"),
        [(math.inf, 1.0, math.inf), (1.0, math.inf, 0.0), (math.inf, math.inf, math.inf)],
    )
    def test_divergence(self, ours, theirs, expected):
        assert results.ratio({0: ours}, {0: theirs}).mean == expected

    def test_negative_losses_have_none(self):
        assert math.isnan(results.ratio({0: -1.0}, {0: 1.0}).mean)

    def test_zero_is_no_division(self):
        assert results.ratio({0: 0.0}, {0: 0.0}).mean == pytest.approx(1.0)


def test_best_setting_is_chosen_on_shared_seeds():
    frame = pd.DataFrame(
        [("a", 0, 1.0), ("b", 0, 2.0), ("b", 1, 0.1), ("c", 0, math.nan)],
        columns=["label", "seed", "train_loss"],
    ).assign(workload="w", iterate="last", step=10, status="finished")
    assert results.best_setting(frame) == "a"


def test_profile_scores():
    times = pd.DataFrame({"a": [1.0, 4.0, math.inf], "b": [2.5, 2.0, math.inf]})
    scores = results.profile_scores(times)
    assert scores["a"] == pytest.approx((1 + 2 / 3) / 2)
    assert scores["b"] == pytest.approx((0.5 + 1) / 2)


def test_facts():
    assert set(results.PACKAGES) < set(results.versions())
    assert SimpleNamespace(**results.device()).count >= 1
