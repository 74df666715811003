import math

import pytest
from mekax.experiments.benchmark import overall, summary, tables
from mekax.experiments.intervals import Interval

LOOKS = [10, 20, 30, 40]


def run(setting, seed, losses, place="last", accuracy=0.9):
    measures = {"train_loss": losses, "test_loss": losses, "test_accuracy": [accuracy] * 4}
    return {
        "setting": setting,
        "seed": seed,
        "place": place,
        "looks": LOOKS,
        "measures": measures,
        "gauges": {},
    }


def unit(method, runs, step_seconds=1.0):
    timing = {"step_seconds": step_seconds, "adam_step_seconds": 1.0, "training_seconds": 7.0}
    head = {"problem": "digits", "batch_size": 32, "steps": 40, "method": method}
    return {**head, "runs": runs, "timing": timing}


DEFAULT = {"rate": 1e-3, "schedule": 0}
OTHER = {"rate": 1e-2, "schedule": 1}
ADAM = unit(
    "adam",
    [
        run(DEFAULT, 0, [8.0, 8.0, 8.0, 4.0]),
        run(OTHER, 0, [4.0, 2.0, 2.0, 1.0]),
        *(run(DEFAULT, seed, [8.0, 8.0, 8.0, 4.0]) for seed in (1, 2)),
        *(run(OTHER, seed, [4.0, 2.0, 2.0, 1.0]) for seed in (1, 2)),
    ],
)
OURS = unit(
    "adameka",
    [
        run({}, seed, losses, place, accuracy)
        for seed, factor in ((0, 1.0), (1, 2.0), (2, 0.5))
        for place, losses, accuracy in (
            ("average", [4.0, 2.0, 1.0, factor * 0.25], 0.95),
            ("last", [4.0, 2.0, 1.0, factor * 0.5], 0.8),
        )
    ],
    step_seconds=2.0,
)
PEER = unit("dowg", [run({}, seed, [9.0, 9.0, None if seed else 9.0, None]) for seed in (0, 1, 2)])


@pytest.fixture
def cell():
    (found,) = summary.cell_summaries([ADAM, PEER, OURS])
    return found


def test_rows(cell):
    assert list(cell.rows) == [
        "adam default",
        "adam best",
        "dowg",
        "adameka",
        "adameka+average",
    ]
    assert cell.rows["adam best"].setting == OTHER
    assert cell.rows["adam best"].tried == 2
    assert cell.rows["adam best"].seeds == (0, 1, 2)
    assert cell.best_baseline is cell.rows["adam best"]
    assert cell.sweeps == {"adam": {"settings": 2, "seconds": 7.0}}


def test_best_setting_counts_divergence_as_the_worst():
    runs = [run(DEFAULT, 0, [1.0, 1.0, 1.0, 3.0]), run(OTHER, 0, [1.0, 1.0, 1.0, None])]
    assert summary.best_setting(runs) == DEFAULT
    runs[0]["measures"]["train_loss"][-1] = math.nan
    runs[1]["measures"]["train_loss"][-1] = 5.0
    assert summary.best_setting(runs) == OTHER


def test_averages_of_a_baseline_have_a_best_setting_of_their_own():
    """The last iterate is best with one setting, the average with the other."""
    averages = [run(DEFAULT, seed, [8.0, 2.0, 1.0, 0.5], "average") for seed in (0, 1, 2)] + [
        run(OTHER, seed, [4.0, 2.0, 2.0, 0.9], "average") for seed in (0, 1, 2)
    ]
    (cell,) = summary.cell_summaries([{**ADAM, "runs": [*ADAM["runs"], *averages]}])
    assert list(cell.rows) == [
        "adam default",
        "adam default+average",
        "adam best",
        "adam best+average",
    ]
    assert cell.rows["adam best"].setting == OTHER
    assert cell.rows["adam best+average"].setting == DEFAULT
    assert cell.rows["adam best+average"].curve("train_loss")[0, -1] == 0.5
    assert cell.best_baseline is cell.rows["adam best"]


def test_ratios_are_geometric_and_paired(cell):
    found = summary.ratio(cell.rows["adameka"], cell.rows["adam best"])
    assert found.mean == pytest.approx(0.5)  # of 0.5, 1 and 0.25
    assert found.low == pytest.approx(0.25)
    assert found.high == pytest.approx(1.0)
    default = summary.ratio(cell.rows["adameka"], cell.rows["adam default"])
    assert default.mean == pytest.approx(0.125)
    test = summary.ratio(cell.rows["adameka"], cell.rows["adam best"], "test_error")
    assert test.mean == pytest.approx(2.0)
    assert test.low == test.high


def test_ratios_with_divergence(cell):
    adam, peer = cell.rows["adam best"], cell.rows["dowg"]
    assert peer.diverged == 3
    assert peer.final("train_loss") is None
    assert summary.ratio(peer, adam) == Interval(math.inf, math.inf, math.inf)
    assert summary.ratio(adam, peer) == Interval(0.0, 0.0, 0.0)
    assert summary.ratio(peer, peer).mean == math.inf


def test_time(cell):
    adam, ours = cell.rows["adam best"], cell.rows["adameka+average"]
    assert summary.steps_to(adam, 1.0) == 40
    assert summary.steps_to(adam, 4.0) == 10
    assert summary.steps_to(adam, math.sqrt(2)) == pytest.approx(35)
    assert summary.steps_to(adam, 0.9) == math.inf
    assert summary.steps_to(cell.rows["dowg"], 1.0) == math.inf
    assert summary.time_to_target(ours, adam) == pytest.approx(30 * 2 / 40)
    assert summary.time_to_target(adam, adam) == 1
    # Two seconds a step: half the steps in the time of Adam's forty.
    assert summary.equal_time_ratio(ours, adam) == pytest.approx(2.0)
    assert summary.equal_time_ratio(cell.rows["dowg"], adam) == math.inf


def test_losses_below_zero_have_times_but_no_ratios():
    """Those of densities and of paths."""
    lower = unit("adameka", [run({}, seed, [4.0, 2.0, -1.0, -3.0]) for seed in (0, 1, 2)])
    (cell,) = summary.cell_summaries([ADAM, lower])
    adam, ours = cell.rows["adam best"], cell.rows["adameka"]
    assert math.isnan(summary.ratio(ours, adam).mean)
    assert math.isnan(summary.ratio(adam, ours).mean)
    assert math.isnan(summary.equal_time_ratio(ours, adam))
    assert summary.steps_to(ours, 0.5) == pytest.approx(25)
    assert summary.steps_to(ours, -2.0) == pytest.approx(35)
    assert summary.time_to_target(ours, adam) == pytest.approx((20 + 10 / 3) / 40)
    (line,) = [one for one in overall.overall([cell]) if one.label == "adameka"]
    assert math.isnan(line.to_adam)
    assert tables.of_cell(cell).lines[-1][4] == "–"


def test_finals_of_adam_and_ours_by_cell(cell):
    text = tables.of_finals([cell])
    assert text.headings == ("cell", "adam default", "adam best", "adameka", "adameka+average")
    assert text.lines == [("digits-32", "4", "1", "0.583 [0.25, 1]", "0.292 [0.125, 0.5]")]
    on_test = tables.of_finals([cell], on_test=True)
    assert on_test.lines[0][3] == "80.0 %"


def test_overall(cell):
    lines = {line.label: line for line in overall.overall([cell])}
    ours = lines["adameka+average"]
    assert (ours.cells, ours.runs, ours.diverged) == (1, 3, 0)
    assert ours.to_adam == ours.to_best == pytest.approx(0.25)
    assert ours.to_default == pytest.approx(0.0625)
    assert ours.test_to_adam == pytest.approx(0.5)
    assert ours.beats_adam == ours.near_adam == ours.reached == 1
    assert ours.time_to_target == pytest.approx(1.5)
    assert ours.time_with_sweep == pytest.approx(0.75)
    assert ours.seconds == 2
    peer = lines["dowg"]
    assert (peer.diverged, peer.reached, peer.near_adam) == (3, 0, 0)
    assert peer.to_adam == math.inf
    assert overall.wins([cell])["adameka"] == {"dowg": 1.0}


def test_scales(cell):
    multiples = [
        run({"scale": scale}, seed, [4.0, 2.0, 1.0, last * factor])
        for scale, last in ((0.5, 0.9), (2.0, 0.4))
        for seed, factor in ((0, 1.0), (1, 2.0), (2, 0.5))
    ]
    (found,) = summary.cell_summaries([OURS, unit("adameka-scaled", multiples)])
    scales = overall.scales([found])["digits-32"]
    assert scales["best"] == 2
    ratio = scales["loss_of_ours_to_best"]
    assert ratio["mean"] == pytest.approx(1.25)
    assert not scales["ours_is_best_or_within_interval"]
    assert overall.scales([]) == {}


def test_without_adam_nothing_is_compared_with_it():
    (found,) = summary.cell_summaries([OURS])
    line = overall.overall([found])[0]
    assert math.isnan(line.to_adam)
    assert math.isnan(line.time_to_target)
    assert overall.wins([found]) == {}
    assert found.best_baseline is None


def test_tables(cell):
    text = tables.of_cell(cell)
    lines = {line[0]: dict(zip(text.headings, line, strict=True)) for line in text.lines}
    assert lines["adam best 0.01 linear"]["train loss"] == "1"
    assert lines["adameka"]["÷ best Adam"] == "0.5 [0.25, 1]"
    assert lines["adameka"]["test accuracy"] == "80.0 %"
    assert lines["dowg"]["train loss"] == "–, 3 of 3 diverged"
    assert lines["dowg"]["time"] == "∞"
    document = tables.markdown(tables.of_suite([cell]))
    assert len({line.count("|") for line in document.splitlines()}) == 1


def test_variations_are_compared_with_what_they_vary():
    def varied(method, factor):
        runs = [
            run({}, seed, [4.0, 2.0, 1.0, ours * factor], place)
            for seed, ours in ((0, 0.5), (1, 1.0), (2, 0.25))
            for place in ("last", "average")
        ]
        return unit(method, runs)

    units = [OURS, varied("adameka-target-0", 1.5), varied("meka-diagonal", 1.0)]
    (found,) = summary.cell_summaries(units)
    assert overall.to_ours(found, "adameka-target-0") == pytest.approx(Interval(1.5, 1.5, 1.5))
    assert overall.to_ours(found, "adameka-target-0+average") == pytest.approx(
        Interval(3.0, 3.0, 3.0)
    )
    assert overall.to_ours(found, "meka-diagonal") is None  # there is no meka
    text = tables.of_ablations([found])
    assert text is not None
    assert text.lines[0] == ("adameka-target-0", "1.5")
    assert text.lines[2] == ("meka-diagonal", "–")


def test_without_variations_there_is_no_table_of_them(cell):
    assert tables.of_ablations([cell]) is None
