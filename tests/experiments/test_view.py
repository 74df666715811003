import contextlib
import html
import io
import json
import re
import shutil
import subprocess
from typing import get_args

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.image import imread
from mekax.curvature import Differentiation
from mekax.experiments import Recorder
from mekax.experiments.view import sources
from mekax.experiments.view.findings import DIFFERENCES, findings
from mekax.experiments.view.page import group, page
from mekax.experiments.view.picture import picture
from mekax.experiments.view.quantities import MISMATCH, OUTCOMES, PLOTS, draw, thin
from mekax.experiments.view.recording import HEADER
from mekax.experiments.view.terminal import metrics_table, sparkline
from mekax.optimizers import Outcome, scale_by_expected_improvement
from rich.console import Console

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-sync"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--enable-logging=stderr", "--window-size=1300,900", "--virtual-time-budget=3000"),
)
HOSTILE = "<img src=x onerror=document.title='run'>"


def metrics_at(step, **other):
    """What an optimizer with a filter and a warm start might tell."""
    noise = np.sin(12.9 * step)
    return {
        "step_size": 0.0 if step == 30 else 0.1 * 0.99**step,
        "step_size_std": 0.05,
        "slope": -0.5 * 0.99**step + 0.1 * noise,
        "slope_std": 0.1,
        "curvature": 2.0 + noise,
        "curvature_std": 0.5,
        "snr": 25 * 0.98**step,
        "radius": 0.2 * 0.99**step,
        "slope_ratio": 0.8 + 0.1 * noise,
        "loss_mean": 0.97**step,
        "loss_std": 0.1,
        "predicted_change": -0.05 * 0.97**step,
        "realized_change": -0.03 * 0.97**step,
        "num_adaptations": max(0, step - 10),
        "num_rejected": int(step > 29),
        "gradient_mismatch": 1e-6,
        "outcome": 1,
        "differentiation": 1,
        "gain": 0.3,
        "gradient_snr": 0.9**step,
        "phase": float(step > 10),
        **other,
    }


def record(path, steps=100, **other):
    with Recorder(path) as recorder:
        for step in range(1, steps + 1):
            recorder.write(step, metrics_at(step), loss=0.97**step + 0.01 * (step % 7), **other)
    return path


def job(folder, optimizer, seed, workload="digits", **other):
    """One run as a comparison keeps it; null stands for what is not finite."""
    at = list(range(1, 41))
    metrics = {name: [metrics_at(step)[name] for step in at] for name in ("step_size", "slope")}
    losses = [None, *(0.9**step for step in at[1:])]
    content = {
        "workload": workload,
        "optimizer": optimizer,
        "runs": [{"setting": {}, "seed": seed, "status": "finished"}],
        "evaluations": {
            "run": [0] * 4,
            "iterate": ["last", "average"] * 2,
            "step": [0, 0, 40, 40],
            "seconds": [0.0] * 4,
            "train_loss": [1.0, 2.0, 0.5, 0.4],
        },
        "steps": {"run": [0] * 40, "step": at, "seconds": at, "loss": losses, **metrics},
        **other,
    }
    path = folder / "jobs" / f"{optimizer} {seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def html_of(*paths):
    """The page without the picture, which takes longer."""
    return page(group(sources.load(paths)), "mekax")


@pytest.fixture
def run(tmp_path):
    return record(tmp_path / "mine.jsonl", gradient_norm=1.0, direction_norm=2.0, accuracy=0.5)


def drawn(path):
    """The plots of one recording: by title, traces by label."""
    plots = draw(sources.load([path]))
    return {plot.title: {trace.label: trace for trace in traces} for plot, traces in plots}


def data_of(text):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(found[1])


def own(text):
    """The page without plotly's script, which names addresses that it never asks for."""
    return re.sub(r"<script>\s*/\*\*\s*\* plotly.js.*?</script>", "", text, flags=re.S)


def browse(text, folder, *words):
    """Load the page in a browser; return the document and what went to the console."""
    file = folder / "page.html"
    file.write_text(text)
    profile = f"--user-data-dir={folder / 'profile'}"
    done = subprocess.run(
        [CHROMIUM, *QUIET, profile, *words, "--dump-dom", file.as_uri()],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    lines = done.stderr.splitlines()
    # Reading pixels is the tests' own doing, and Chromium has advice for that.
    return done.stdout, [line for line in lines if "CONSOLE" in line and "readback" not in line]


def test_a_recording_becomes_a_page_and_a_picture(mekax, run):
    result = mekax("view", str(run))
    assert result.exit_code == 0, result.output
    text = (run.parent / "view.html").read_text()
    assert 4e6 < len(text.encode()) < 6e6  # with plotly's script, so that it works offline
    text = own(text)
    assert len(text) < 1e5
    assert imread(run.parent / "view.png").shape[1] > 1000
    for plot in PLOTS:
        assert f"<h3>{html.escape(plot.title)}</h3>" in text
        assert html.escape(plot.read) in text
        for sign, meaning in plot.signs:
            assert html.escape(sign) in text
            assert html.escape(meaning) in text
    assert "<h3>accuracy</h3>" in text  # what only the user knows
    assert "://" not in text  # nothing from elsewhere
    (content,) = data_of(text)
    loss = {line["label"]: line for line in content["plots"][0]["lines"]}
    assert loss["filtered"]["values"][0] == 0.97
    assert loss["filtered"]["spread"][0] == 0.1
    assert loss["filtered"]["steps"] == list(range(1, 101))


def test_the_symptoms_are_explained():
    text = " ".join(f"{plot.read} {plot.signs}" for plot in PLOTS)
    words = "too large a batch,noise-dominated,curvature rising,filter miscalibrated"
    for symptom in f"{words},trust region collapsing,edge of stability".split(","):
        assert symptom in text
    assert all(plot.read and all(map(all, plot.signs)) for plot in PLOTS)


def test_numbers_have_the_meaning_that_the_rule_gives_them():
    assert [outcome.name.lower() for outcome in Outcome] == list(OUTCOMES)
    assert get_args(Differentiation)[DIFFERENCES] == "differences"
    tx, params = scale_by_expected_improvement(), jnp.array([1.0])
    for off, accepted in ((MISMATCH - 0.02, True), (MISMATCH + 0.02, False)):
        refused = pytest.raises(ValueError, match="gradient of the mean of value_fn")
        with contextlib.nullcontext() if accepted else refused:
            updates = 2 * params * (1 + off / (1 - off))
            tx.update(updates, tx.init(params), params, grad=updates, value_fn=lambda p: p @ p)


def test_what_a_run_lacks_is_left_out(tmp_path):
    path = tmp_path / "adam.jsonl"
    with Recorder(path) as recorder:
        for step in range(5):
            recorder.write(step, loss=1.0, step_size=1e-3, nothing=float("nan"))
    assert list(drawn(path)) == ["Loss", "Step size", "Radius of the trust region"]


@pytest.mark.parametrize("extra", [{"direction_norm": 5.0}, {"step_length": 0.5}])
def test_the_newton_step_comes_from_length_or_norm(tmp_path, extra):
    path = tmp_path / "run.jsonl"
    numbers = {"step_size": 0.1, "slope": -3.0, "curvature": 2.0}
    with Recorder(path) as recorder:
        recorder.write(1, **numbers, **extra)
        recorder.write(2, **{**numbers, "slope": 1.0}, **extra)  # uphill: there is none
    plots = drawn(path)
    sizes = plots["Step size"]
    np.testing.assert_allclose(sizes["Newton step −s/h"].values, [0.3, np.nan])
    np.testing.assert_allclose(sizes["edge of stability −2s/h"].values, [0.6, np.nan])
    (ratio,) = plots["Step against the Newton step"].values()
    np.testing.assert_allclose(ratio.values, [1 / 3, np.nan])
    (descent,) = plots["Descent"].values()
    assert descent.values.tolist() == [3.0, -1.0]


def test_quantities_recorded_at_different_steps_meet_where_both_are(tmp_path):
    path = tmp_path / "run.jsonl"
    with Recorder(path) as recorder:
        for step in range(10):
            recorder.write(step, loss_mean=float(step))
            if step % 3 == 0:
                recorder.write(step, loss_std=step / 10)
    line = drawn(path)["Loss"]["filtered"]
    assert line.values.index.tolist() == line.values.tolist() == [0, 3, 6, 9]
    np.testing.assert_allclose(line.spread, [0, 0.3, 0.6, 0.9])


def test_changes_are_summed_over_the_steps_between_records(tmp_path):
    path = tmp_path / "run.jsonl"
    with Recorder(path) as recorder:
        recorder.extend([1, 11, 21], {"realized_change": [-1.0, np.nan, -0.5]})
    line = drawn(path)["Predicted and realized change"]["realized"]
    assert line.values.tolist() == [-1, -1, -6]


def test_thinning_keeps_spikes_and_invents_nothing():
    values = np.sin(np.arange(20_000) / 3e3)
    values[12_345], values[777] = 50, -50
    kept = thin(values, 1_500)
    assert kept.size <= 1_500
    assert (np.diff(kept) > 0).all()
    assert {777, 12_345} <= set(kept.tolist())
    assert thin(np.arange(7.0), 1_500).tolist() == list(range(7))


def test_pages_of_many_long_runs_stay_small(tmp_path):
    for run in range(4):
        record(tmp_path / f"{run}.jsonl", steps=1500)
    assert len(html_of(tmp_path).encode()) < 6e6


def test_metrics_on_the_terminal():
    assert sparkline(np.arange(8.0)) == "▁▂▃▄▅▆▇█"
    assert len(sparkline(np.arange(10_001.0))) <= 40
    assert sparkline(np.array([np.nan, np.inf])) == "  "
    assert sparkline(np.ones(3)) == "▁▁▁"
    assert sparkline(np.array([-1.0, 0.0, 1.0])) == "▁▅█"
    console = Console(file=io.StringIO(), width=100)
    console.print(metrics_table({"snr": np.array([1.0, 10.0, 100.0]), "other": np.ones(3)}))
    assert console.file.getvalue().split() == ["signal-to-noise", "100", "▁▅█"]


def test_a_comparison_is_shown(comparison):
    text = html_of(comparison.out)
    (content,) = data_of(text)
    names = sorted(run["name"] for run in content["runs"])
    assert names == sorted(
        f"{o}, seed {s}" for o in ("meka", "adam:0.001", "sgd:0.1") for s in (0, 1)
    )
    assert "<h2>digits-logistic</h2>" in text
    assert "Step against the Newton step" in text
    assert "Gradient norm" in text
    assert html_of(comparison.out / "results.json") == text


def test_the_runs_of_jobs_become_series(tmp_path):
    one = job(tmp_path, "meka", 0)
    job(tmp_path, "meka", 1)
    job(tmp_path, "mine", 0)
    runs = sources.load([tmp_path])
    assert [run.name for run in runs] == ["meka, seed 0", "meka, seed 1", "mine"]
    assert [run.family for run in runs] == ["meka", "meka", "mine"]
    series = runs[0].series
    assert set(series) == {"loss", "step_size", "slope", "train_loss"}
    assert series["train_loss"].index.tolist() == [0, 40]
    assert series["train_loss"].values.tolist() == [1.0, 0.5]  # at the last iterate
    np.testing.assert_allclose(series["loss"].values[:3], [np.nan, 0.81, 0.729])
    (content,) = data_of(html_of(tmp_path))
    colors = [run["color"] for run in content["runs"]]
    assert colors[0] == colors[1] != colors[2]
    assert [run.name for run in sources.load([one])] == ["meka"]


def test_runs_of_one_name_are_told_apart(tmp_path):
    paths = [record(tmp_path / folder / "run.jsonl", steps=2) for folder in "ab"]
    assert [run.name for run in sources.load(paths)] == ["a: run", "b: run"]
    assert [run.name for run in sources.load([*paths, paths[0]])] == ["a: run", "b: run"]
    deep = record(tmp_path / "c" / "a" / "run.jsonl", steps=2)
    names = [run.name for run in sources.load([paths[0], deep])]
    assert names == ["a: run", "a: run (2)"]
    record(tmp_path / "a" / "also.jsonl", steps=2)
    assert [run.name for run in sources.load([tmp_path / "a"])] == ["also", "run"]


def test_problems_have_plots_of_their_own(mekax, tmp_path):
    job(tmp_path, "meka", 0)
    job(tmp_path, "adam", 0, workload="../../<b>other")
    result = mekax("view", str(tmp_path))
    assert result.exit_code == 0, result.output
    contents = data_of((tmp_path / "view.html").read_text())
    assert [len(content["runs"]) for content in contents] == [1, 1]
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {"jobs", "view.html", "view-b-other.png", "view-digits.png"}


def test_damage_is_shown_as_a_warning(mekax, run):
    lines = run.read_bytes().splitlines(keepends=True)
    lines[5] = b"\x00garbage\n"
    run.write_bytes(b"".join(lines) + b'{"step": 101, "lo')
    result = mekax("view", str(run))
    warning = "Damaged lines are left out: 6. The last line was cut off and is left out."
    assert result.exit_code == 0
    assert f"mine: {warning}" in result.output
    text = (run.parent / "view.html").read_text()
    assert f'<p class="warning">mine: {warning}</p>' in text
    assert data_of(text)[0]["plots"][0]["lines"][1]["values"][-1] is not None


def test_of_damaged_results_the_sound_runs_are_shown(tmp_path):
    for damaged in (
        {"runs": [{"setting": {}, "seed": [1], "status": "finished"}]},
        {"evaluations": {"run": [0], "iterate": ["last"], "step": [1], "train_loss": ["x"]}},
        {"evaluations": {"run": [0], "iterate": ["last"], "step": [10**400], "loss": [1.0]}},
        {"steps": {"run": [0], "loss": [1.0, 2.0]}},
        {"steps": 3},
    ):
        job(tmp_path, "meka", 0)
        other = job(tmp_path, "adam", 0, **damaged)
        content = other.read_bytes()
        (run,) = sources.load([tmp_path])
        assert run.note.startswith("Damaged results are left out: ")
        assert other.read_bytes() == content
    other.write_text(job(tmp_path, "mine", 0).read_text()[:-9])
    assert [run.name for run in sources.load([tmp_path])] == ["meka", "mine"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train.py", b"print('hello')\n", "to be a recording"),
        ("state.pkl", b"\x80\x04cos\nsystem\n", "to be a recording"),
        ("job.json", b"{}", "cannot be understood"),
        ("job.json", b"[1, 2]", "cannot be understood"),
        ("job.json", b'{"runs": [{"problem": 1}]}', "cannot be understood"),
        ("job.json", b"\x80\x04cos\nsystem\n", "cannot be understood"),
        ("job.json", b"[" * 100_000, "cannot be understood"),
        ("empty.jsonl", f"{HEADER}\n".encode(), "nothing yet"),
    ],
)
def test_what_is_no_run_is_refused(mekax, tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    result = mekax("view", str(tmp_path / name))
    assert result.exit_code == 2
    assert words in result.output
    assert (tmp_path / name).read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_missing_runs_are_refused(mekax, run, tmp_path):
    (tmp_path / "empty").mkdir()
    for words, message in (
        ([], "got none"),
        ([str(tmp_path / "nowhere")], "cannot be read"),
        ([str(tmp_path / "empty")], "neither the results"),
        ([str(run), "--out", str(run)], "folder that can be written to"),
    ):
        result = mekax("view", *words)
        assert result.exit_code == 2
        assert message in result.output


def test_findings_name_what_stands_out(tmp_path):
    def found(**other):
        path = tmp_path / "run.jsonl"
        path.unlink(missing_ok=True)
        with Recorder(path) as recorder:
            for step in range(1, 101):
                one = {name: rule(step) for name, rule in other.items()}
                recorder.write(step, metrics_at(step, num_rejected=0, num_adaptations=step, **one))
        (recording,) = sources.load([path])
        return " ".join(findings(recording.series))

    assert found() == ""
    assert "Noise-dominated" in found(snr=lambda step: 0.5)
    assert "larger than needed" in found(snr=lambda step: 1e3, gain=lambda step: 0.9)
    assert "Curvature rising" in found(curvature=lambda step: 1.1**step)
    assert "Miscalibrated: 0.1" in found(slope_ratio=lambda step: 0.1)
    assert "Trust region collapsing" in found(radius=lambda step: 0.7**step)
    assert "edge of stability" in found(step_length=lambda step: 1.0, slope=lambda step: -1.0)
    mismatch = found(gradient_mismatch=lambda step: 0.5)
    for words in ("slopes differ by 50 %", "sum", "clipped", "another batch", "sign"):
        assert words in mismatch
    assert "by differences" in found(differentiation=lambda step: DIFFERENCES)
    (recording,) = sources.load([record(tmp_path / "other.jsonl")])
    assert list(findings(recording.series)) == [
        "Batches rejected because something was not finite: 1."
    ]
    with Recorder(tmp_path / "short.jsonl") as recorder:
        recorder.write(1, metrics_at(1, snr=0.1))
    assert list(findings(sources.load([tmp_path / "short.jsonl"])[0].series)) == []


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


@needs_browser
def test_the_page_loads_and_draws_without_an_error(run, tmp_path):
    document, console = browse(html_of(run), tmp_path, f"--screenshot={tmp_path / 'shot.png'}")
    assert console == []
    assert document.count('class="main-svg"') >= len(PLOTS) + 1
    assert 'data-waiting="0"' in document
    colors = imread(tmp_path / "shot.png")[..., :3].reshape(-1, 3)
    blue = np.abs(colors - np.array([0x00, 0x72, 0xB2]) / 255).max(axis=1) < 0.02
    assert blue.sum() > 300  # lines, not only the swatch


USE_IT = """
<script>
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const settled = async () => { do await wait(20); while (waiting.size); };
const [plot, other] = groups[0].plots;
const strokes = () => plot.div.querySelectorAll(".scatterlayer path.js-line").length;
(async () => {
  await settled();
  const found = { before: strokes() };
  Plotly.Fx.hover(plot.div, { xval: 40 });
  plot.div.emit("plotly_hover", { xvals: [40] }); await wait(200);
  found.tip = plot.div.querySelector(".hoverlayer").textContent;
  found.beside = other.div.querySelector(".hoverlayer").textContent;
  plot.div.emit("plotly_relayout", { "xaxis.range[0]": 20, "xaxis.range[1]": 60 });
  await settled(); found.zoomed = [plot, other].map((one) => one.div.layout.xaxis.range);
  plot.div.emit("plotly_doubleclick");
  await settled(); found.whole = other.div.layout.xaxis.range;
  document.querySelector("figure button").click();
  await settled(); found.scale = plot.div.layout.yaxis.type;
  const slider = document.querySelector("input[type=range]");
  slider.value = 0; slider.dispatchEvent(new Event("input"));
  found.smoothing = document.querySelector("output").innerText;
  await settled(); found.rough = plot.div.data.at(-1).y.slice(0, 3);
  document.querySelector("input[type=checkbox]").click();
  await settled(); found.after = strokes();
  document.title = JSON.stringify(found);
})();
</script>
"""


@needs_browser
def test_the_page_can_be_used(run, tmp_path):
    text = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", html_of(run))
    document, console = browse(text.replace("</body>", USE_IT + "</body>"), tmp_path)
    assert console == []
    found = json.loads(html.unescape(re.search("<title>(.*?)</title>", document)[1]))
    assert found["before"] > 1
    assert found["after"] == 0  # the run is hidden
    assert re.search(r"^40mine, batch: 0\.\d+mine, filtered: 0\.\d+ ± 0\.1$", found["tip"])
    assert found["beside"].startswith("40")
    assert found["zoomed"] == [[20, 60], [20, 60]]
    assert found["whole"] == [1, 100]
    assert found["scale"] == "linear"
    assert found["smoothing"] == "none"
    np.testing.assert_allclose(found["rough"], [0.97, 0.9409, 0.91267])


@needs_browser
def test_names_of_a_user_are_text(tmp_path):
    scalar = "</script><script>document.title='scalar'</script>"
    run = record(tmp_path / f"{HOSTILE}.jsonl", steps=3, **{scalar: 1.0, "$\\frac{": 2.0})
    run.write_bytes(run.read_bytes() + b"<script>")
    status = [{"setting": {}, "seed": 0, "status": scalar}]
    one = job(tmp_path, "mine", 0, workload=scalar, runs=status)
    one.write_text(one.read_text().replace('"mine"', json.dumps(HOSTILE)))
    runs = sources.load([run, one])
    for compared in group(runs):
        picture(compared, tmp_path / "picture.png")
    text = page(group(runs), "mekax")
    assert HOSTILE not in text
    assert scalar not in text
    assert own(text).count("<script") == own(text).count("</script>") == 2
    document, console = browse(text, tmp_path)
    assert console == []
    assert f"<title>{html.escape(HOSTILE, quote=False)}" in document
