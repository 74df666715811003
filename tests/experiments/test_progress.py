import io

import numpy as np
from mekax.experiments.progress import Bars, Lines, display, live
from mekax.experiments.records import Progress, Run
from rich.console import Console


def training(steps, **columns):
    loss = np.geomspace(1.0, 0.01, steps)
    series = {"loss": loss, "seconds": np.arange(steps), "step_size": loss, **columns}
    measured = {"train_loss": np.ones(1), "test_accuracy": np.full(1, 0.5)}
    return Progress(
        [Run({}, 0)],
        fraction=0.5,
        step=steps,
        evaluations=[{"step": 0, "seconds": 0.0, "last": measured}],
        chunks=[{name: values[None] for name, values in series.items()}],
    )


def test_live_numbers_tell_what_is_recorded():
    assert live(Progress([Run({}, 0)])) == ""
    text = live(training(3, snr=np.array([1.0, 2.0, 3.0]), num_rejected=np.array([0, 0, 2])))
    assert text == (
        "loss 0.0100, test accuracy 50.00%, step size 0.01, signal-to-noise 3, 2 rejected"
    )
    assert "rejected" not in live(training(3, num_rejected=np.zeros(3)))


def test_a_terminal_shows_metrics_while_a_run_goes_on():
    console = Console(file=io.StringIO(), force_terminal=True, width=100, legacy_windows=False)
    with display(console) as shown:
        assert isinstance(shown, Bars)
        shown.note("loading")
        shown.update("digits · meka · seed 0", training(3, snr=np.array([1.0, 10.0, 100.0])))
        shown._live.refresh()
        text = console.file.getvalue()
        for words in ("digits · meka · seed 0", "signal-to-noise", "100", "▁▅█", "50.00%"):
            assert words in text
        shown.say("done")
    assert "done" in console.file.getvalue()


def test_a_log_gets_lines():
    assert isinstance(display(Console(file=io.StringIO())), Lines)
