import contextlib
import html
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
from mekax.experiments.recording import HEADER
from mekax.experiments.view import sources, traces
from mekax.experiments.view.findings import DIFFERENCES, findings
from mekax.experiments.view.quantities import MISMATCH, OUTCOMES, PLOTS, draw
from mekax.experiments.view.thinning import POINTS, thin
from mekax.optimizers import Outcome, scale_by_expected_improvement

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


@pytest.fixture
def run(tmp_path):
    return record(tmp_path / "mine.jsonl", gradient_norm=1.0, direction_norm=2.0, accuracy=0.5)


def data_of(page):
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(text[1])


def browse(page, folder, *words):
    """Load the page in a browser; return the document and what went to the console."""
    file = folder / "page.html"
    file.write_text(page)
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
    page = (run.parent / "view.html").read_text()
    assert imread(run.parent / "view.png").shape[1] > 1000
    for plot in PLOTS:
        assert f"<h3>{html.escape(plot.title)}</h3>" in page
        assert html.escape(plot.read) in page
        for sign, meaning in plot.signs:
            assert html.escape(sign) in page
            assert html.escape(meaning) in page
    assert "<h3>accuracy</h3>" in page  # what only the user knows
    assert "://" not in page  # nothing from elsewhere
    (group,) = data_of(page)
    loss = {line["label"]: line for line in group["plots"][0]["lines"]}
    assert loss["filtered"]["values"][0] == 0.97
    assert loss["filtered"]["spread"][0] == 0.1
    assert loss["filtered"]["steps"] == {"start": 1, "stride": 1, "count": 100}


def test_the_symptoms_are_explained():
    text = " ".join(f"{plot.read} {plot.signs}" for plot in PLOTS)
    for word in (
        "too large a batch",
        "noise-dominated",
        "curvature rising",
        "filter miscalibrated",
        "trust region collapsing",
        "edge of stability",
    ):
        assert word in text
    assert all(plot.read for plot in PLOTS)


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
    drawn = draw(sources.load([path]))
    assert [one.plot.title for one in drawn] == [
        "Loss",
        "Step size",
        "Radius of the trust region",
    ]


def test_the_newton_step_comes_from_length_or_norm(tmp_path):
    path = tmp_path / "run.jsonl"
    numbers = {"step_size": 0.1, "slope": -3.0, "curvature": 2.0}
    for extra in ({"direction_norm": 5.0}, {"step_length": 0.5}):
        with Recorder(path) as recorder:
            recorder.write(1, **numbers, **extra)
            recorder.write(2, **{**numbers, "slope": 1.0}, **extra)  # uphill: there is none
        drawn = {one.plot.title: one.lines for one in draw(sources.load([path]))}
        labels = {line.label: line.values for _, line in drawn["Step size"]}
        np.testing.assert_allclose(labels["Newton step −s/h"], [0.3, np.nan])
        np.testing.assert_allclose(labels["edge of stability −2s/h"], [0.6, np.nan])
        ((_, ratio),) = drawn["Step against the Newton step"]
        np.testing.assert_allclose(ratio.values, [1 / 3, np.nan])
        ((_, descent),) = drawn["Descent"]
        assert descent.values.tolist() == [3.0, -1.0]
        path.unlink()


def test_quantities_recorded_at_different_steps_meet_where_both_are(tmp_path):
    path = tmp_path / "run.jsonl"
    with Recorder(path) as recorder:
        for step in range(10):
            recorder.write(step, loss_mean=float(step))
            if step % 3 == 0:
                recorder.write(step, loss_std=step / 10)
    (recording,) = sources.load([path])
    line = traces.recorded("loss_mean", "u", spread="loss_std")(recording)
    assert line.steps.tolist() == line.values.tolist() == [0, 3, 6, 9]
    np.testing.assert_allclose(line.spread, [0, 0.3, 0.6, 0.9])


def test_changes_are_summed_over_the_steps_between_records(tmp_path):
    path = tmp_path / "run.jsonl"
    with Recorder(path) as recorder:
        recorder.extend([1, 11, 21], {"realized_change": [-1.0, np.nan, -0.5]})
    (recording,) = sources.load([path])
    line = traces.summed("realized_change", "realized")(recording)
    assert line.values.tolist() == [-1, -1, -6]


def test_thinning_keeps_spikes_and_invents_nothing():
    values = np.sin(np.arange(20_000) / 3e3)
    values[12_345], values[777] = 50, -50
    kept = thin(values)
    assert kept.size <= POINTS
    assert (np.diff(kept) > 0).all()
    assert {777, 12_345} <= set(kept.tolist())
    assert thin(np.arange(7.0)).tolist() == list(range(7))


def test_a_comparison_is_shown(mekax, comparison, tmp_path):
    result = mekax("view", str(comparison.out), "--out", str(tmp_path / "report"))
    assert result.exit_code == 0, result.output
    page = (tmp_path / "report" / "view.html").read_text()
    assert (tmp_path / "report" / "view.png").exists()
    (group,) = data_of(page)
    names = [run["name"] for run in group["runs"]]
    assert names == [f"{o}, seed {s}" for o in ("meka", "adam:0.001", "sgd:0.1") for s in (0, 1)]
    shades = [run["color"] for run in group["runs"]]
    assert shades[0] == shades[1] != shades[2] == shades[3]
    assert "<h2>digits-logistic</h2>" in page
    assert "Step against the Newton step" in page
    assert "Gradient norm" in page


def test_runs_of_one_name_are_told_apart(tmp_path):
    paths = [record(tmp_path / folder / "run.jsonl", steps=2) for folder in "ab"]
    assert [run.name for run in sources.load(paths)] == ["a: run", "b: run"]
    assert [run.name for run in sources.load([*paths, paths[0]])] == ["a: run", "b: run"]
    deep = record(tmp_path / "c" / "a" / "run.jsonl", steps=2)
    names = [run.name for run in sources.load([paths[0], deep])]
    assert names == ["a: run", "a: run (2)"]


def test_a_folder_of_recordings_is_shown_in_order(tmp_path):
    for name in ("b", "a"):
        record(tmp_path / f"{name}.jsonl", steps=2)
    assert [run.name for run in sources.load([tmp_path])] == ["a", "b"]


def test_problems_have_plots_of_their_own(mekax, comparison, tmp_path):
    content = json.loads((comparison.out / "results.json").read_text())
    for run in content["runs"][:2]:
        run["problem"] = "../../<b>other"
    folder = tmp_path / "two"
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(content))
    result = mekax("view", str(folder))
    assert result.exit_code == 0, result.output
    assert [group["runs"] != [] for group in data_of((folder / "view.html").read_text())] == [1, 1]
    assert {path.name for path in folder.iterdir()} == {
        *("results.json", "view.html"),
        *("view-b-other.png", "view-digits-logistic.png"),
    }


def test_damage_is_shown_as_a_warning(mekax, run):
    text = run.read_bytes().splitlines(keepends=True)
    text[5] = b"\x00garbage\n"
    run.write_bytes(b"".join(text) + b'{"step": 101, "lo')
    result = mekax("view", str(run))
    warning = "Line 6 is damaged and left out. The last line was cut off and is left out."
    assert result.exit_code == 0
    assert f"mine: {warning}" in result.output
    page = (run.parent / "view.html").read_text()
    assert f'<p class="warning">mine: {warning}</p>' in page
    assert data_of(page)[0]["plots"][0]["lines"][1]["values"][-1] is not None


def test_of_truncated_results_the_whole_runs_are_shown(comparison, tmp_path):
    path = tmp_path / "results.json"
    text = (comparison.out / "results.json").read_text()
    third = [match.start() for match in re.finditer('{"problem"', text)][3]
    for cut, runs in ((len(text) - 2, 6), (third, 3), (third + 500, 3)):
        path.write_text(text[:cut])
        loaded = sources.load([path])
        assert len(loaded) == runs
        assert all("is damaged; of its runs" in run.note for run in loaded)
        assert path.read_text() == text[:cut]


def test_of_damaged_results_the_sound_runs_are_shown(comparison, tmp_path):
    path = tmp_path / "results.json"
    damages = [
        lambda run: run.pop("kind"),
        lambda run: run.update(learning_rate="fast"),
        lambda run: run.update(seed=[1]),
        lambda run: run["records"].update(loss=[1.0]),
        lambda run: run["evaluations"].update(step=[1] * 99),
        lambda run: run["evaluations"].update(train_loss="x"),
        lambda run: run.clear(),
    ]
    for damage in damages:
        content = json.loads((comparison.out / "results.json").read_text())
        damage(content["runs"][0])
        path.write_text(json.dumps(content))
        assert len(sources.load([path])) == 5


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train.py", b"print('hello')\n", "to be a recording"),
        ("state.pkl", b"\x80\x04cos\nsystem\n", "to be a recording"),
        ("results.json", b"{}", "cannot be understood"),
        ("results.json", b"[1, 2]", "cannot be understood"),
        ("results.json", b'{"runs": [{"problem": 1}]}', "cannot be understood"),
        ("results.json", b"\x80\x04cos\nsystem\n", "cannot be understood"),
        ("results.json", b"[" * 100_000, "cannot be understood"),
        ("empty.jsonl", f"{HEADER}\n".encode(), "nothing yet"),
        ("results.json", b'{"runs": []}', "nothing yet"),
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
        ([str(tmp_path / "empty")], "neither results.json"),
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
        return " ".join(findings(recording))

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
    assert findings(recording) == ["Batches rejected as something was not finite: 1."]
    with Recorder(tmp_path / "short.jsonl") as recorder:
        recorder.write(1, metrics_at(1, snr=0.1))
    assert findings(sources.load([tmp_path / "short.jsonl"])[0]) == []


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


@needs_browser
def test_the_page_loads_and_draws_without_an_error(mekax, run, tmp_path):
    assert mekax("view", str(run), "--out", str(tmp_path)).exit_code == 0
    page = (tmp_path / "view.html").read_text()
    document, console = browse(page, tmp_path, f"--screenshot={tmp_path / 'shot.png'}")
    assert console == []
    assert f'data-drawn="{len(PLOTS) + 1}"' in document
    colors = imread(tmp_path / "shot.png")[..., :3].reshape(-1, 3)
    blue = np.abs(colors - np.array([0x00, 0x72, 0xB2]) / 255).max(axis=1) < 0.02
    assert blue.sum() > 300  # lines, not only the swatch


# Frames keep real time, which a busy machine runs out of; timers keep the browser's virtual one.
NO_FRAMES = "<script>window.requestAnimationFrame = (draw) => setTimeout(draw, 0);</script>"
USE_IT = """
<script>
const canvas = document.querySelector("canvas"), box = canvas.getBoundingClientRect();
const data = JSON.parse(document.getElementById("data").textContent);
canvas.setPointerCapture = () => {};
const ink = () => {
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let count = 0;
  for (let k = 0; k < pixels.length; k += 4) if (pixels[k + 2] > pixels[k] + 60) count++;
  return count;
};
const move = (kind, x) => canvas.dispatchEvent(
  new PointerEvent(kind, { clientX: box.left + x, clientY: box.top + 50 }));
const wait = () => new Promise((done) => setTimeout(done, 50));
(async () => {
  const found = { before: ink() };
  move("pointermove", 200);
  found.tip = document.querySelector(".tip").innerText;
  move("pointerdown", 100); move("pointermove", 200); move("pointerup", 200);
  await wait(); move("pointermove", 62); found.first = document.querySelector(".tip").innerText;
  canvas.dispatchEvent(new MouseEvent("dblclick"));
  await wait(); move("pointermove", 62); found.whole = document.querySelector(".tip").innerText;
  document.querySelector("figure button").click();
  found.button = document.querySelector("figure button").innerText;
  const slider = document.querySelector("input[type=range]");
  slider.value = 0; slider.dispatchEvent(new Event("input"));
  found.smoothing = document.querySelector("output").innerText;
  document.querySelector("input[type=checkbox]").click();
  move("pointerleave", 62);
  await wait(); found.after = ink();
  document.title = JSON.stringify(found);
})();
</script>
"""


@needs_browser
def test_the_page_can_be_used(mekax, run, tmp_path):
    assert mekax("view", str(run), "--out", str(tmp_path)).exit_code == 0
    page = (tmp_path / "view.html").read_text()
    page = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", page)  # lets ours run
    page = page.replace("<head>", "<head>" + NO_FRAMES).replace("</body>", USE_IT + "</body>")
    document, console = browse(page, tmp_path)
    assert console == []
    found = json.loads(html.unescape(re.search("<title>(.*?)</title>", document)[1]))
    assert found["before"] > 300
    assert found["after"] == 0  # the run is hidden
    assert re.search(r"mine, filtered, step \d+: 0\.\d+ ± 0\.1", found["tip"])
    assert "step 1:" in found["whole"]
    assert "step 1:" not in found["first"]
    assert found["button"] == "log"
    assert found["smoothing"] == "none"


@needs_browser
def test_names_of_a_user_are_text(mekax, comparison, tmp_path):
    scalar = "</script><script>document.title='scalar'</script>"
    run = record(tmp_path / f"{HOSTILE}.jsonl", steps=3, **{scalar: 1.0, "$\\frac{": 2.0})
    run.write_bytes(run.read_bytes() + b"<script>")
    content = json.loads((comparison.out / "results.json").read_text())
    content["runs"] = content["runs"][:1]
    content["runs"][0] |= {"problem": scalar, "status": scalar, "kind": HOSTILE}
    (tmp_path / "results.json").write_text(json.dumps(content))
    result = mekax("view", str(run), str(tmp_path / "results.json"), "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    page = (tmp_path / "view.html").read_text()
    assert HOSTILE not in page
    assert scalar not in page
    assert page.count("<script") == page.count("</script>") == 2
    document, console = browse(page, tmp_path)
    assert console == []
    assert f"<title>{html.escape(HOSTILE, quote=False)}" in document
