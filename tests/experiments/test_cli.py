import json
import os
import signal
import subprocess
import sys

import pytest
from mekax.experiments import cli, registry, results
from mekax.experiments.benchmark import run as benchmark
from mekax.experiments.compare import plan as compare
from mekax.experiments.errors import spread

# Runs every bad command line in one process, which must not import anything heavy.
RUN_ALL = """
import json, sys
from mekax.experiments.cli import main
results = []
for words in json.load(sys.stdin):
    import contextlib, io
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        try:
            main(words)
        except SystemExit as exit:
            heavy = {"jax", "optax", "flax", "orbax", "tensorflow_datasets", "matplotlib"}
            heavy = sorted((heavy | {"sklearn", "pandas", "scipy"}) & set(sys.modules))
            results.append([exit.code, errors.getvalue(), heavy])
print(json.dumps(results))
"""

# A test run in the background ignores the signal, and its children inherit that.
RUN_INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from mekax.experiments.cli import main
main()
"""

BAD = {
    "compare mnits": "Did you mean 'mnist'",
    "compare digits --optimizers mekka": "Did you mean 'meka'",
    "compare mnist": "dataset_info.json",
    "compare mnist --data-dir /nowhere": "/nowhere/mnist/<version>/dataset_info.json",
    "compare digits --batch-size 0": "--batch-size to be a whole number",
    "compare digits --batch-size -3": "--batch-size to be a whole number",
    "compare digits --batch-size 1439": "at most the 1,438 training examples",
    "compare digits --epochs 0": "--epochs to be a whole number",
    "compare digits --epochs 1.5": "--epochs to be a whole number",
    "compare digits --seconds 0": "--seconds to be a positive number",
    "compare digits --seconds nan": "--seconds to be a positive number",
    "compare digits --seeds 0": "--seeds to be a whole number",
    "compare digits --epochs 1 --seconds 1": "got both",
    "profile --rounds 0": "--rounds to be a whole number",
    "profile chunk": "Did you mean 'chunks'",
    "compare digits --optimizers adam:-1": "positive number as the learning rate",
    "compare digits --optimizers adam:fast": "positive number as the learning rate",
    "compare digits --optimizers meka:0.1": "without a learning rate",
    "compare digits --optimizers meka --tune": "learning rate to tune",
    "compare digits --out FILE": "folder that can be written to",
    "compare digits --out USED": "Add --resume to continue",
    "compare digits --out USED --resume": "cannot be understood (KeyError: 'schema')",
    "compare digits --out TRUNCATED --resume": "cannot be understood (JSONDecodeError",
    "compare digits --out STALE --resume": "seeds was 3, is now 1",
    "compare digits --seeds 3 --out STALE --resume": "jax was 0.0.1, is now",
    "compare digits --resume": "expected --out with --resume",
    "compare digits --optimizers": "requires an argument",
    "compare digits --sedes 1": "No such option",
    "reproduce": "at least one reproduction",
    "reproduce noisy-quadratik": "Did you mean 'noisy-quadratic'",
    "reproduce noisy-quadratic --seeds none": "--seeds to be a whole number",
    "reproduce noisy-quadratic --out USED": "cannot be understood",
    "benchmark quadratik": "Did you mean 'quadratic'",
    "benchmark mnist-cnn": "expected problems of the profile standard, got 'mnist-cnn'",
    "benchmark --profile ful": "Did you mean 'full'",
    "benchmark --optimizers addam": "Did you mean 'adam'",
    "benchmark": "dataset_info.json",
    "benchmark mnist --data-dir /nowhere": "/nowhere/mnist/<version>/dataset_info.json",
    "benchmark digits --batch-size 32 none": "--batch-size to be a whole number",
    "benchmark digits --batch-size 1439": "at most the 1,438 training examples",
    "benchmark digits --backend lokey": "Did you mean 'loky'",
    "benchmark digits --backend ray": "needs the package ray",
    "benchmark digits --jobs 0": "--jobs to be a whole number",
    "benchmark digits --seeds 1.5": "--seeds to be a whole number",
    "benchmark digits --out FILE": "folder that can be written to",
    "benchmark digits --out BENCHED": "seeds was 3, is now 5",
    "benchmark digits --seeds 3 --out BENCHED": "jax was 0.0.1, is now",
    "benchmark digits --out GARBLED": "cannot be understood (KeyError: 'settings')",
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    (folder / "file").write_text("")
    (folder / "used").mkdir()
    (folder / "used" / "results.json").write_text("{}")
    (folder / "used" / "noisy-quadratic.json").write_text("{}")
    (folder / "truncated").mkdir()
    (folder / "truncated" / "results.json").write_text('{"schema": 1, "runs": [{"problem": "dig')
    (folder / "stale").mkdir()
    recorded = {
        "schema": compare.SCHEMA,
        "command": ["mekax", "compare", "--seeds", "3"],
        "settings": compare.check(("digits",), seeds="3", out=str(folder / "stale")).settings(),
        "versions": {**results.versions(), "jax": "0.0.1"},
        "device": {},
        "problems": {},
    }
    results.write_json(folder / "stale" / "results.json", recorded)
    content = benchmark.check(("digits",), seeds="3", out=str(folder / "benched")).record
    content["versions"]["jax"] = "0.0.1"
    results.write_json(folder / "benched" / "benchmark.json", content)
    (folder / "garbled").mkdir()
    (folder / "garbled" / "benchmark.json").write_text("{}")
    before = {path: path.read_bytes() for path in folder.glob("*/*")}
    names = ("benched", "file", "garbled", "stale", "truncated", "used")
    places = {name.upper(): str(folder / name) for name in names}
    lines = [[places.get(word, word) for word in line.split()] for line in BAD]
    process = subprocess.run(
        [sys.executable, "-c", RUN_ALL],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "HOME": str(folder), "TFDS_DATA_DIR": ""},
        check=True,
    )
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert {path: path.read_bytes() for path in folder.glob("*/*")} == before
    return dict(zip(BAD, json.loads(process.stdout), strict=True))


@pytest.mark.parametrize("line", BAD)
def test_bad_input(line, outcomes):
    code, message, heavy = outcomes[line]
    assert code == 2
    assert BAD[line] in message
    assert "Traceback" not in message
    assert not heavy
    if message.startswith("mekax:"):
        assert message.count("\n") == 1


def test_problems_lists_all(mekax):
    result = mekax("problems")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()] == list(registry.PROBLEMS)


def test_help_names_the_optimizers(mekax):
    assert "adameka" in mekax("compare", "--help").output


def test_optimizers_take_several_words(mekax, monkeypatch):
    seen = {}

    def check(**options):
        seen.update(options)
        raise cli.UsageError("enough")

    monkeypatch.setattr(cli.comparisons, "check", check)
    mekax("compare", "--optimizers", "meka", "adam:1e-3", "mnist", "--seeds", "3")
    assert seen["optimizers"] == ("meka", "adam:1e-3")
    assert seen["problems"] == ("mnist",)
    assert seen["seeds"] == "3"


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_interrupt_keeps_what_is_done(tmp_path):
    out = tmp_path / "out"
    words = ("compare", "digits-logistic", "--optimizers", "sgd:0.1", "--seconds", "1")
    command = [*words, "--seeds", "30", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-c", RUN_INTERRUPTIBLE, *command],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "seed 0: train loss" in line:
            process.send_signal(signal.SIGINT)
            break
    rest = process.stdout.read()
    assert process.wait() == cli.INTERRUPTED
    assert "Interrupted" in rest
    assert json.loads((out / "results.json").read_text())["status"] == "interrupted"
    jobs, _ = results.jobs(out)
    statuses = sorted(job["runs"][0]["status"] for job in jobs)
    assert statuses in (["finished", "interrupted"], ["finished"])
    assert (out / "overview.png").exists()


def one_by_one(*values):
    return [word for value in values for word in ("--optimizers", value)]


@pytest.mark.parametrize(
    "typed",
    [
        "mnist --optimizers meka adam:1e-3 sgd:0.1",
        "mnist --optimizers meka,adam:1e-3,sgd:0.1",
        "mnist --optimizers meka, adam:1e-3 ,sgd:0.1",
        "mnist --optimizers=meka,adam:1e-3,sgd:0.1",
        "mnist --optimizers meka --optimizers adam:1e-3 sgd:0.1",
    ],
)
def test_all_spellings_of_several_values(typed):
    expected = ["mnist", *one_by_one("meka", "adam:1e-3", "sgd:0.1")]
    assert spread(typed.split(), "--optimizers") == expected


def test_next_option_ends_the_values():
    words = ["--optimizers", "meka", "adam", "--epochs", "2", "digits"]
    assert spread(words, "--optimizers") == [*one_by_one("meka", "adam"), "--epochs", "2", "digits"]


def test_name_of_a_problem_ends_the_values():
    words = ["--optimizers", "meka", "adam", "digits", "mnist"]
    result = spread(words, "--optimizers", stop={"digits", "mnist"})
    assert result == [*one_by_one("meka", "adam"), "digits", "mnist"]


@pytest.mark.parametrize("words", [["--optimizers"], ["--optimizers", "--tune"], ["a", "--tune"]])
def test_nothing_to_spread(words):
    assert spread(words, "--optimizers") == words


def test_double_dash_ends_the_options():
    words = ["--optimizers", "meka", "--", "--optimizers", "x"]
    assert spread(words, "--optimizers") == words
