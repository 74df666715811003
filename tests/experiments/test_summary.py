import json
import math

import numpy as np
import pytest
from mekax.experiments import curves, files, intervals, plots, schedule, summary, tables
from mekax.experiments.optimizer_specs import parse
from mekax.experiments.runs import Evaluation, Run
from rich.console import Console


def made(optimizer, seed, losses, status="finished", sizes=(1.0, 2.0), problem="p"):
    evaluations = [
        Evaluation(step, 0.1 * step, {"train_loss": loss, "test_loss": 2 * loss})
        for step, loss in enumerate(losses)
    ]
    count = len(sizes)
    chunk = {
        "loss": np.ones(count),
        "step_size": np.array(sizes),
        "seconds": 0.1 * np.arange(1, count + 1),
    }
    run = Run(problem, parse(optimizer), seed, status, 0.5, evaluations)
    if count:
        run.add(chunk)
    return run


def test_bootstrap_interval():
    values = np.random.default_rng(0).normal(3.0, 2.0, 40)
    interval = intervals.bootstrap_mean(values.tolist())
    half = 1.96 * values.std() / math.sqrt(40)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1)
    assert intervals.bootstrap_mean(values.tolist()) == interval
    assert intervals.bootstrap_mean([5.0]) == (5.0, 5.0, 5.0)


@pytest.mark.parametrize("values", [[], [1.0, math.nan]])
def test_bootstrap_needs_finite_values(values):
    with pytest.raises(ValueError, match="finite"):
        intervals.bootstrap_mean(values)


def test_row_leaves_diverged_runs_out_of_the_mean():
    runs = [made("sgd", 0, [1.0, 0.5]), made("sgd", 1, [1.0, math.nan], "diverged")]
    (row,) = summary.rows(runs, [parse("sgd"), parse("adam")])
    assert row.diverged == 1
    assert row.final("train_loss") == (0.5, 0.5, 0.5)
    assert row.step_size_range() == pytest.approx((1.0, 2.0))
    assert row.steps_per_second() == pytest.approx(10.0)


def test_interrupted_runs_count_only_alone():
    whole, part = made("sgd", 0, [1.0, 0.5]), made("sgd", 1, [1.0], "interrupted")
    assert summary.rows([whole, part], [parse("sgd")])[0].runs == (whole,)
    assert summary.rows([part], [parse("sgd")])[0].interrupted


def test_sweep_takes_the_best_mean_and_no_diverged_seed():
    specs = tuple(parse(f"sgd:{rate}") for rate in (0.1, 1.0, 3.0))
    runs = [
        *(made("sgd:0.1", seed, [1.0, 0.5]) for seed in (0, 1)),
        made("sgd:1", 0, [1.0, 0.1]),
        made("sgd:1", 1, [1.0, 0.2]),
        made("sgd:3", 0, [1.0, 0.0]),
        made("sgd:3", 1, [1.0, math.nan], "diverged"),
    ]
    sweep = summary.sweep(runs, specs, seeds=2)
    assert sweep is not None
    assert sweep.best.label == "sgd:1"
    assert sweep.seconds == pytest.approx(6 * 0.2)
    assert summary.sweep(runs, specs, seeds=3) is None


def test_evaluations_fall_on_the_ends_of_epochs():
    budget = schedule.of_epochs(3, 7, 20)
    assert budget.looks == tuple(range(1, 22))
    budget = schedule.of_epochs(2, 100, 5)
    assert budget.looks == (33, 67, 100, 133, 167, 200)
    assert [budget.steps_to_next_look(step) for step in (0, 33, 199)] == [33, 34, 1]
    assert len(schedule.of_epochs(50, 100, 20).looks) == 50


def test_strict_json(tmp_path):
    content = {"a": [1.0, math.nan, -math.inf], "b": np.float32(0.5), "c": np.arange(2), "d": True}
    files.write_json(tmp_path / "x.json", content)
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": [1.0, None, None],
        "b": 0.5,
        "c": [0, 1],
        "d": True,
    }
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_files_give_back_float32_exactly(tmp_path):
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    files.write_json(tmp_path / "x.json", values)
    read = json.loads((tmp_path / "x.json").read_text())
    np.testing.assert_array_equal(np.array(read, np.float32), values)


def test_failed_write_leaves_the_old_file(tmp_path):
    files.write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "x.json", {"a": object()})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_long_runs_are_thinned():
    run = made("sgd", 0, [1.0, 0.5], sizes=np.ones(12_000))
    records = run.as_dict()["records"]
    assert records["stride"] == 3
    assert len(records["step"]) == len(records["loss"]) == 4_000
    assert list(records["step"][:2]) == [1, 4]


@pytest.mark.parametrize("count", [2, 12_000])
def test_runs_come_back_from_a_file(count):
    run = made("sgd:0.3", 1, [1.0, math.nan], "diverged", sizes=np.linspace(0.0, 1.0, count))
    content = files.plain(run.as_dict())
    back = Run.from_dict(content)
    assert files.plain(back.as_dict()) == content
    assert (back.spec, back.steps, back.ended) == (run.spec, count, True)
    assert back.seconds == pytest.approx(run.seconds)
    ours, theirs = curves.of_record([run], "step_size"), curves.of_record([back], "step_size")
    assert ours is not None
    assert theirs is not None
    np.testing.assert_allclose(theirs.middle, np.interp(theirs.x, ours.x, ours.middle), atol=0.01)


def test_curves_of_different_lengths_share_an_axis():
    runs = [made("sgd", 0, [4.0, 2.0, 0.0]), made("sgd", 1, [4.0, 2.0])]
    curve = curves.of_measure(runs, "train_loss")
    assert curve is not None
    assert curve.x[-1] == 1
    np.testing.assert_allclose(curve.middle, curve.low)
    assert curves.of_record(runs, "gain") is None


def test_figures_survive_odd_values(tmp_path):
    runs = [
        made("meka", 0, [1.0, 0.0], sizes=[0.0, 0.0]),
        made("sgd:9", 0, [1.0, math.nan], "diverged", sizes=[math.nan, 1.0]),
        made("sgd", 0, [1.0], "interrupted", sizes=[-1.0, 1.0]),
    ]
    rows = summary.rows(runs, [run.spec for run in runs])
    drawn = {path.name for path in plots.draw_all("p", rows, tmp_path / "new")}
    assert {"test_loss.png", "step_size.png", "overview.png"} <= drawn
    assert "test_accuracy.png" not in drawn


def test_table_of_odd_values():
    runs = [
        made("sgd:9", 0, [1.0, math.nan], "diverged", sizes=[]),
        made("sgd", 0, [1.0, 0.5]),
        made("sgd", 1, [1.0, math.nan], "diverged"),
    ]
    console = Console(width=160, record=True)
    console.print(tables.table("p", summary.rows(runs, [parse("sgd:9"), parse("sgd")])))
    text = console.export_text()
    assert "1 of 2 diverged" in text
    assert "–" in text
