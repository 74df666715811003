import io

import numpy as np
from mekax.experiments.gauges import gauges, sparkline
from mekax.experiments.optimizer_specs import OptimizerSpec
from mekax.experiments.progress import Bars, Lines, display, live
from mekax.experiments.runs import Evaluation, Run
from mekax.experiments.schedule import of_epochs
from rich.console import Console


def run_of(steps, **records):
    run = Run("digits", OptimizerSpec("meka"), 0)
    run.evaluations.append(Evaluation(0, 0.0, {"train_loss": 1.0, "test_accuracy": 0.5}))
    loss = np.geomspace(1.0, 0.01, steps)
    run.add({"loss": loss, "seconds": np.arange(steps), "step_size": loss, **records})
    return run


def test_a_sparkline_is_short_and_shows_the_trend():
    assert sparkline(np.arange(8.0)) == "▁▂▃▄▅▆▇█"
    assert len(sparkline(np.arange(10_001.0))) <= 40
    assert sparkline(np.array([np.nan, np.inf])) == "  "
    assert sparkline(np.ones(3)) == "▁▁▁"
    assert sparkline(np.array([-1.0, 0.0, 1.0])) == "▁▅█"


def test_live_numbers_tell_what_is_recorded():
    assert live(Run("digits", OptimizerSpec("meka"), 0)) == ""
    text = live(run_of(3, snr=np.array([1.0, 2.0, 3.0]), num_rejected=np.array([0.0, 0.0, 2.0])))
    assert text == (
        "loss 0.0100, test accuracy 50.00%, step size 0.01, signal-to-noise 3, 2 rejected"
    )
    assert "rejected" not in live(run_of(3, num_rejected=np.zeros(3)))


def test_a_terminal_shows_gauges_while_a_run_goes_on():
    console = Console(file=io.StringIO(), force_terminal=True, width=100, legacy_windows=False)
    budget = of_epochs(1, 4, 1)
    with display(console) as shown:
        assert isinstance(shown, Bars)
        shown.note("loading")
        shown.update(run_of(3, snr=np.array([1.0, 10.0, 100.0])), budget)
        shown._live.refresh()
        text = console.file.getvalue()
        for words in ("digits · meka · seed 0", "signal-to-noise", "100", "▁▅█", "50.00%"):
            assert words in text
        shown.end(run_of(4))
    assert "train loss 1.0000" in console.file.getvalue()


def test_what_is_not_recorded_has_no_gauge():
    console = Console(file=io.StringIO(), width=100)
    console.print(gauges(run_of(3)))
    text = console.file.getvalue()
    assert "step size" in text
    assert "gain" not in text


def test_a_log_gets_lines():
    assert isinstance(display(Console(file=io.StringIO())), Lines)
