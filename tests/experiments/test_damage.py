"""Damaged files give clear errors, are left as they are, and nothing ever runs what they hold."""

import ast
import json
import pickle
import shutil
from pathlib import Path

import mekax.curvature
import mekax.experiments
import mekax.optimizers
import numpy as np
import pytest
from mekax.experiments import data

PACKAGES = (mekax.curvature, mekax.optimizers, mekax.experiments)
# Loaders that run code which a file names.
UNSAFE = {"pickle", "dill", "cloudpickle", "shelve", "marshal", "torch", "yaml"}
# Those of the fixture `comparison`.
SETTINGS = ("digits-logistic", "--optimizers", "meka", "adam:1e-3", "sgd", "--epochs", "2")


class Bomb:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def truncated(share):
    return lambda content: content[: int(share * len(content))]


def changed(edit):
    def damage(content):
        report = json.loads(content)
        return json.dumps(edit(report) or report).encode()

    return damage


REPORT = {
    "empty": lambda content: b"",
    "first half": truncated(0.5),
    "zeros": lambda content: b"\0" * len(content),
    "nested": lambda content: b"[" * 100_000,
    "list": lambda content: b"[1, 2]",
    "no settings": changed(lambda report: report.pop("settings") and None),
    "other schema": changed(lambda report: report.update(schema=99)),
}
JOB = {
    "empty": lambda content: b"",
    "first half": truncated(0.5),
    "all but the end": truncated(0.9999),
    "binary": lambda content: bytes(range(256)),
    "nested": lambda content: b"[" * 100_000,
    "runs a number": changed(lambda job: job.update(runs=3)),
    "run a word": changed(lambda job: job.update(runs=["run"])),
    "no steps": changed(lambda job: job.pop("steps") and None),
    "short list": changed(lambda job: job["evaluations"].update(seconds=[1.0])),
}
DAMAGES = [("results.json", name) for name in REPORT] + [
    ("jobs/*/meka-seed-1.json", n) for n in JOB
]


@pytest.mark.parametrize(("file", "name"), DAMAGES)
def test_damaged_results_are_refused_and_left_alone(mekax, comparison, tmp_path, file, name):
    folder = tmp_path / "out"
    shutil.copytree(comparison.out, folder)
    (path,) = folder.glob(file)
    path.write_bytes({**REPORT, **JOB}[name](path.read_bytes()))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = mekax("compare", *SETTINGS, "--seeds", "2", "--out", str(folder), "--resume")
    assert result.exit_code == 2, result.output
    assert "cannot be understood" in result.output
    assert "It has been left as it is" in result.output
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before


def test_pickles_in_a_cache_are_not_loaded(tmp_path, prepare):
    prepare(tmp_path)
    prepared = data.find("mnist", tmp_path)
    file = data.cache_file(prepared)
    file.parent.mkdir(parents=True)
    trace = tmp_path / "exploded"
    np.savez(file, train_image=np.array([Bomb(trace)], object), allow_pickle=True)
    assert data.read_cache(file, prepared.examples) is None
    assert not trace.exists()
    with np.load(file, allow_pickle=True) as archive:
        assert archive["train_image"].size == 1
    assert trace.exists()  # the bomb is real


@pytest.mark.parametrize("name", ["results.json", "run.jsonl", "state.pkl"])
def test_pickles_named_as_runs_are_not_loaded(mekax, tmp_path, name):
    trace = tmp_path / "exploded"
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(trace)))
    assert mekax("view", str(tmp_path / name)).exit_code == 2
    assert not trace.exists()


def test_no_code_can_load_a_pickle():
    files = [file for package in PACKAGES for file in Path(package.__path__[0]).rglob("*.py")]
    assert len(files) > 50
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not UNSAFE & {alias.name.split(".")[0] for alias in node.names}, file
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in UNSAFE or node.level, file
            if isinstance(node, ast.Import):  # joblib.load runs what a file names
                assert all(alias.name != "joblib" for alias in node.names), file
            if isinstance(node, ast.ImportFrom) and node.module == "joblib":
                known = {"Parallel", "delayed", "parallel_config"}
                assert {alias.name for alias in node.names} <= known, file
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), file
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), file
                assert node.value.value is False, file
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load"):
                assert any(word.arg == "allow_pickle" for word in node.keywords), file
