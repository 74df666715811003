"""What a benchmark comes to: rows, ratios, times and tables."""

import dataclasses
import math

import numpy as np
import pytest
from mekax.experiments.benchmark import ratios, report
from mekax.experiments.registry import OPTIMIZERS, PROBLEMS
from mekax.experiments.results import Interval

STEPS = [10, 20, 30, 40]
DEFAULT = {"learning_rate": 1e-3, "schedule": 0}
OTHER = {"learning_rate": 1e-2, "schedule": 1}
TOO_FAST = {"learning_rate": 0.1, "schedule": 1}


def run(setting, seed, losses, iterate="last", accuracy=0.9):
    return setting, seed, losses, iterate, accuracy


def job(optimizer, runs, step_seconds=1.0):
    names = list(dict.fromkeys((tuple(setting.items()), seed) for setting, seed, *_ in runs))
    rows = [
        (names.index((tuple(setting.items()), seed)), iterate, step, loss, accuracy)
        for setting, seed, losses, iterate, accuracy in runs
        for step, loss in zip(STEPS, losses, strict=True)
    ]
    run, iterate, step, loss, accuracy = (list(column) for column in zip(*rows, strict=True))
    return {
        "workload": "digits-32",
        "problem": "mnist",
        "batch_size": 32,
        "inputs": {"steps": 40},
        "optimizer": optimizer,
        "runs": [{"setting": dict(s), "seed": seed, "status": "finished"} for s, seed in names],
        "timing": {
            "step_seconds": step_seconds, "adam_step_seconds": 1.0, "training_seconds": 7.0,
        },
        "evaluations": {
            "run": run, "iterate": iterate, "step": step,
            "train_loss": loss, "test_loss": loss, "test_accuracy": accuracy,
        },
    }  # fmt: skip


ADAM = job(
    "adam",
    [
        *(run(DEFAULT, seed, [8.0, 8.0, 8.0, 4.0]) for seed in (0, 1, 2)),
        *(run(OTHER, seed, [4.0, 2.0, 2.0, 1.0]) for seed in (0, 1, 2)),
        *(run(TOO_FAST, seed, [9.0, 9.0, 9.0, 9.0]) for seed in (0, 1, 2)),
    ],
)
OURS = job(
    "adameka",
    [
        run({}, seed, losses, iterate, accuracy)
        for seed, factor in ((0, 1.0), (1, 2.0), (2, 0.5))
        for iterate, losses, accuracy in (
            ("average", [4.0, 2.0, 1.0, factor * 0.25], 0.95),
            ("last", [4.0, 2.0, 1.0, factor * 0.5], 0.8),
        )
    ],
    step_seconds=2.0,
)
OTHERS = job("dowg", [run({}, seed, [9.0, 9.0, None if seed else 9.0, None]) for seed in (0, 1, 2)])


@pytest.fixture(scope="module")
def workloads():
    return ratios.rows_of([ADAM, OTHERS, OURS])


@pytest.fixture(scope="module")
def rows(workloads):
    return workloads["digits-32"]


def test_rows(rows):
    assert list(rows) == [
        "adam default", "adam best", "dowg", "adameka+average", "adameka",
    ]  # fmt: skip
    assert rows["adam best"].setting == "adam:0.01 linear"
    assert rows["adam best"].tried == 3
    assert rows["adam best"].seeds == (0, 1, 2)
    assert ratios.best_baseline(rows) is rows["adam best"]


def test_a_best_setting_at_the_edge_has_no_ratio(rows):
    assert not rows["adam best"].at_edge
    narrow = job(
        "adam",
        [
            *(run(DEFAULT, seed, [8.0, 8.0, 8.0, 4.0]) for seed in (0, 1, 2)),
            *(run(OTHER, seed, [4.0, 2.0, 2.0, 1.0]) for seed in (0, 1, 2)),
        ],
    )
    workloads = ratios.rows_of([narrow, OURS])
    rows = workloads["digits-32"]
    assert rows["adam best"].at_edge
    assert not rows["adam default"].at_edge
    table = ratios.compared(workloads)
    one, ours = report.workload_table(rows, table), ratios.overall(table).loc["adameka"]
    assert one.loc["adam best 0.01 linear†", "÷ best Adam"] == "at the edge"
    assert one.loc["adameka", "÷ best Adam"] == "at the edge"
    assert one.loc["adameka", "÷ best"] == "–"
    assert one.loc["adameka", "÷ Adam 1e-3"] != "–"
    assert report.ratio_table(workloads, table).loc["digits-32", "adameka"] == "at the edge"
    assert math.isnan(ours["to_adam"])
    assert ours["mean"] is None
    assert report.suite_table(ratios.overall(table)).loc["adameka", "workloads"] == "0 of 1"
    (words,) = [s for s in report._sentences(workloads, [narrow]) if "adam best on digits-32" in s]
    assert "Widen LADDER" in words


def test_ratios_are_of_what_is_above_the_floor(monkeypatch):
    """With a floor of 0.9, losses of 1 and 1.1 are twice apart; without one, a tenth."""
    entry = dataclasses.replace(PROBLEMS["mnist"], floor=0.9)
    monkeypatch.setitem(PROBLEMS, "mnist", entry)
    ours = job("adameka", [run({}, seed, [4.0, 2.0, 1.3, 1.1]) for seed in (0, 1, 2)])
    workloads = ratios.rows_of([ADAM, ours])
    rows = workloads["digits-32"]
    found = ratios.against(rows["adameka"], rows)
    assert found["to_adam"].mean == pytest.approx(2.0)
    assert found["equal_time"] == pytest.approx(2.0)
    assert found["to_default"].mean == pytest.approx(0.2 / 3.1)
    assert found["steps_to_target"] == math.inf
    # Halfway in the logarithm of what is above the floor.
    target = math.sqrt(0.4 * 0.2)
    assert ratios.steps_to(rows["adameka"], target) == pytest.approx(35)
    assert report.final_table(workloads).loc["digits-32", "adameka"] == "1.1"
    diverged = job("adameka", [run({}, seed, [4.0, 2.0, None, None]) for seed in (0, 1, 2)])
    rows = ratios.rows_of([ADAM, diverged])["digits-32"]
    assert ratios.against(rows["adameka"], rows)["to_adam"].mean == math.inf
    lower = job("adameka", [run({}, seed, [4.0, 2.0, 1.3, 0.8]) for seed in (0, 1, 2)])
    workloads = ratios.rows_of([ADAM, lower])
    rows = workloads["digits-32"]
    assert math.isnan(ratios.against(rows["adameka"], rows)["to_adam"].mean)
    (words,) = [s for s in report._sentences(workloads, [ADAM]) if "adameka on digits-32" in s]
    assert words.startswith("Below the floor")


def test_averages_of_a_baseline_have_a_best_setting_of_their_own():
    """The last iterate is best with one setting, the average with the other."""
    averages = [
        run(setting, seed, losses, iterate)
        for setting, last, average in ((DEFAULT, 4.0, 0.5), (OTHER, 1.0, 0.9))
        for seed in (0, 1, 2)
        for iterate, losses in (
            ("last", [8.0, 4.0, 4.0, last]),
            ("average", [8.0, 2.0, 1.0, average]),
        )
    ]
    rows = ratios.rows_of([job("adam", averages)])["digits-32"]
    assert rows["adam best"].setting == "adam:0.01 linear"
    assert rows["adam best+average"].setting == "adam:0.001"
    assert rows["adam best+average"].loss[0, -1] == 0.5
    assert ratios.best_baseline(rows) is rows["adam best+average"]


def test_the_better_of_last_and_average_is_the_reference():
    both = [
        run({"learning_rate": rate, "schedule": 0}, seed, [8.0, 4.0, 4.0, loss], iterate)
        for rate, losses in ((1e-3, (9.0, 9.0)), (1e-2, (2.0, 0.25)), (0.1, (9.0, 9.0)))
        for seed in (0, 1, 2)
        for iterate, loss in zip(("last", "average"), losses, strict=True)
    ]
    rows = ratios.rows_of([job("adam", both), OURS])["digits-32"]
    found = ratios.against(rows["adameka+average"], rows)
    assert found["to_adam"].mean == found["to_best"].mean == pytest.approx(1.0)
    assert ratios.against(rows["adam best"], rows)["to_adam"].mean == pytest.approx(8.0)


def test_against_the_references(rows):
    found = ratios.against(rows["adameka"], rows)
    assert found["to_adam"].mean == pytest.approx(0.5)  # of 0.5, 1 and 0.25
    assert found["to_adam"].low == pytest.approx(0.25)
    assert found["to_adam"].high == pytest.approx(1.0)
    assert found["to_default"].mean == pytest.approx(0.125)
    assert found["test_to_adam"].mean == pytest.approx(2.0)
    other = ratios.against(rows["dowg"], rows)
    assert rows["dowg"].diverged == 3
    assert rows["dowg"].final() is None
    assert other["to_adam"].mean == math.inf


def test_time(rows):
    adam, ours = rows["adam best"], rows["adameka+average"]
    assert ratios.steps_to(adam, 1.0) == 40
    assert ratios.steps_to(adam, 4.0) == 10
    assert ratios.steps_to(adam, math.sqrt(2)) == pytest.approx(35)
    assert ratios.steps_to(adam, 0.9) == math.inf
    assert ratios.steps_to(rows["dowg"], 1.0) == math.inf
    found = ratios.against(ours, rows)
    assert found["steps_to_target"] == 30
    assert found["time_to_target"] == pytest.approx(30 * 2 / 40)
    assert ratios.against(adam, rows)["time_to_target"] == 1
    # Two seconds a step: half the steps in the time of Adam's forty.
    assert found["equal_time"] == pytest.approx(2.0)
    assert ratios.equal_time_ratio(rows["dowg"], adam) == math.inf


def test_losses_below_zero_have_times_but_no_ratios():
    """Those of densities and of paths."""
    lower = job("adameka", [run({}, seed, [4.0, 2.0, -1.0, -3.0]) for seed in (0, 1, 2)])
    workloads = ratios.rows_of([ADAM, lower])
    rows = workloads["digits-32"]
    found = ratios.against(rows["adameka"], rows)
    assert math.isnan(found["to_adam"].mean)
    assert math.isnan(found["equal_time"])
    assert ratios.steps_to(rows["adameka"], 0.5) == pytest.approx(25)
    assert ratios.steps_to(rows["adameka"], -2.0) == pytest.approx(35)
    assert found["time_to_target"] == pytest.approx((20 + 10 / 3) / 40)
    table = ratios.compared(workloads)
    lines = ratios.overall(table)
    assert math.isnan(lines.loc["adameka", "to_adam"])
    assert report.workload_table(rows, table).loc["adameka", "÷ best Adam"] == "–"


def test_finals_of_adam_and_ours_by_workload(workloads):
    finals = report.final_table(workloads)
    assert finals.loc["digits-32"].to_dict() == {
        "adam default": "4",
        "adam best": "1",
        "adameka": "0.583 [0.25, 1]",
        "adameka+average": "0.292 [0.125, 0.5]",
    }
    assert report.final_table(workloads, on_test=True).loc["digits-32", "adameka"] == "80.0 %"


def test_a_rise_is_told_from_noise_by_three_evaluations():
    losses = [8.0, 1.0, 1.0, 4.0], [8.0, 1.0, 1.0, 30.0], [8.0, 1.0, 1.0, None]
    ours = job("adameka", [run({}, seed, some) for seed, some in enumerate(losses)])
    row = ratios.rows_of([ours])["digits-32"]["adameka"]
    assert row.rose == 2


def test_overall(workloads):
    lines = ratios.overall(ratios.compared(workloads))
    ours = lines.loc["adameka+average"]
    assert (ours["workloads"], ours["runs"], ours["diverged"]) == (1, 3, 0)
    assert ours["rose"] == 0
    assert ours["to_adam"] == ours["to_best"] == pytest.approx(0.25)
    assert ours["mean"].mean == ours["worst"] == pytest.approx(0.25)
    assert ours["worst_workload"] == "digits-32"
    assert ours["to_default"] == pytest.approx(0.0625)
    assert ours["test_to_adam"] == pytest.approx(0.5)
    assert ours["near_adam"] == 1
    assert ours["time_to_target"] == pytest.approx(1.5)
    assert ours["time_with_sweep"] == pytest.approx(0.5)
    assert ours["score_steps"] == 1
    assert ours["score_seconds"] == pytest.approx((4 - 1.5) / 3)
    assert ours["seconds"] == 2
    other = lines.loc["dowg"]
    assert (other["diverged"], other["score_steps"], other["near_adam"]) == (3, 0, 0)
    assert other["to_adam"] == other["mean"].mean == math.inf
    assert ratios.wins(workloads).loc["adameka"].to_dict() == {"dowg": 1.0}


def test_the_mean_over_workloads_is_geometric_and_names_the_worst():
    losses = OURS["evaluations"]["train_loss"]
    worse = {**OURS["evaluations"], "train_loss": [8 * loss for loss in losses]}
    large = {"workload": "digits-512", "batch_size": 512}
    second = [{**ADAM, **large}, {**OURS, **large, "evaluations": worse}]
    lines = ratios.overall(ratios.compared(ratios.rows_of([ADAM, OURS, *second])))
    ours = lines.loc["adameka"]
    assert ours["mean"].mean == pytest.approx(math.sqrt(0.5 * 4))
    assert (ours["mean"].low, ours["mean"].high) == pytest.approx((0.5, 4))
    assert (ours["worst"], ours["worst_workload"]) == (pytest.approx(4), "digits-512")


def test_a_mean_with_a_reference_that_diverged_is_no_loss():
    diverged = job("adam", [run(DEFAULT, seed, [8.0, 8.0, None, None]) for seed in (0, 1, 2)])
    large = {"workload": "digits-512", "batch_size": 512}
    second = [{**diverged, **large}, {**OURS, **large}]
    lines = ratios.overall(ratios.compared(ratios.rows_of([ADAM, OURS, *second])))
    assert lines.loc["adameka"]["mean"] == (0, 0, 0)


def test_scales():
    multiples = [
        run({"scale": scale}, seed, [4.0, 2.0, 1.0, last * factor])
        for scale, last in ((0.5, 0.9), (2.0, 0.4))
        for seed, factor in ((0, 1.0), (1, 2.0), (2, 0.5))
    ]
    found = ratios.scales(ratios.rows_of([OURS, job("adameka-scaled", multiples)]))["digits-32"]
    assert found["best"] == 2
    assert found["loss_of_ours_to_best"]["mean"] == pytest.approx(1.25)
    assert not found["ours_is_best_or_within_interval"]
    assert ratios.scales({}) == {}


def test_without_adam_nothing_is_compared_with_it():
    workloads = ratios.rows_of([OURS])
    line = ratios.overall(ratios.compared(workloads)).iloc[0]
    assert math.isnan(line["to_adam"])
    assert math.isnan(line["time_to_target"])
    assert ratios.wins(workloads).empty
    assert ratios.best_baseline(workloads["digits-32"]) is None


def test_tables(workloads, rows):
    table = ratios.compared(workloads)
    one = report.workload_table(rows, table)
    assert one.loc["adam best 0.01 linear", "train loss"] == "1"
    assert one.loc["adameka", "÷ best Adam"] == "0.5 [0.25, 1]"
    assert one.loc["adameka", "test accuracy"] == "80.0 %"
    assert one.loc["dowg", "train loss"] == "–, 3 of 3 diverged"
    assert one.loc["dowg", "time"] == "∞"
    suite = report.suite_table(ratios.overall(table))
    assert suite.loc["adameka", "worst"] == "0.5 (digits-32)"
    document = suite.to_markdown(disable_numparse=True)
    assert len({line.count("|") for line in document.splitlines()}) == 1


def test_variations_are_compared_with_what_they_vary():
    def varied(optimizer, factor):
        runs = [
            run({}, seed, [4.0, 2.0, 1.0, ours * factor], iterate)
            for seed, ours in ((0, 0.5), (1, 1.0), (2, 0.25))
            for iterate in ("last", "average")
        ]
        return job(optimizer, runs)

    jobs = [OURS, varied("adameka-averaging-none", 1.5), varied("meka-diagonal", 1.0)]
    workloads = ratios.rows_of(jobs)
    rows = workloads["digits-32"]
    assert ratios.to_ours("adameka-averaging-none", rows) == pytest.approx(Interval(1.5, 1.5, 1.5))
    average = ratios.to_ours("adameka-averaging-none+average", rows)
    assert average == pytest.approx(Interval(3.0, 3.0, 3.0))
    assert ratios.to_ours("meka-diagonal", rows) is None  # there is no meka
    table = report.ablation_table(workloads)
    assert table.loc["adameka-averaging-none", "digits-32"] == "1.5"
    assert table.loc["meka-diagonal", "digits-32"] == "–"
    assert report.ablation_table(ratios.rows_of([OURS])).empty


def test_every_loss_counts_where_it_is_not_finite(rows):
    assert np.isinf(rows["dowg"].loss[:, -1]).all()
    assert OPTIMIZERS["dowg"].group == "learning_rate_free"
