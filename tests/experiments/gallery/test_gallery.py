import importlib.util
import io
import json

import jax
import numpy as np
import optax
import pytest
from mekax.experiments.gallery import ENTRIES, run, training
from rich.console import Console

# The others have no such twin: SVI draws its particles otherwise, and Diffrax's programs take long
# to compile and are built like the recurrent one.
TWINS = sorted({*ENTRIES} - {"svi", "neural-ode", "neural-cde"})


def load(name):
    if absent := run.missing(name):
        pytest.skip(f"needs {absent}")
    return run.load(name)


def run_quietly(folder, *names, seeds=1):
    out = io.StringIO()
    console = Console(file=out, width=200)
    done = run.gallery(
        folder, console=console, command=["mekax"], names=names, quick=True, seeds=seeds
    )
    return done, out.getvalue()


@pytest.mark.parametrize("name", TWINS)
def test_both_forms_of_a_step_have_one_objective(name):
    program = load(name)
    tx = optax.with_extra_args_support(optax.sgd(0.01))
    carry = program.start(tx, jax.random.key(0))
    batch = program.batch(jax.random.key(1))
    ends = []
    for step in (program.theirs, program.ours):
        make = program.jit(lambda carry, batch, step=step: step(tx, carry, batch))
        ends.append(program.parts(make(carry, batch)[0])[0])
    for a, b in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    begin = jax.tree.leaves(program.parts(carry)[0])
    assert any((a != b).any() for a, b in zip(begin, jax.tree.leaves(ends[0]), strict=True))


@pytest.mark.parametrize("name", ENTRIES)
def test_no_program_needs_more_than_five_changed_lines(name):
    program = load(name)
    changed = training.changed_lines(program.theirs, program.ours)
    assert len(changed) + 1 <= 5
    assert any("value_fn" in line and "update(" in line for line in changed)


# The two programs of Diffrax take a minute each: the CDE stands for both, and `--quick` for all.
@pytest.mark.parametrize("name", [name for name in ENTRIES if name != "neural-ode"])
def test_a_few_steps_of_every_program(name):
    program = load(name)
    result = training.train(program, steps=3, seeds=1, adam=False)
    for values in result.losses.values():
        assert np.isfinite(values).all()
    assert result.losses.keys() == {"theirs", "adameka", "average"}
    assert result.losses["theirs"] != result.losses["adameka"] != result.losses["average"]
    assert min(result.slowdown, *result.seconds.values(), *result.compile_seconds.values()) > 0


def test_changed_lines_ignore_layout_and_comments():
    def theirs(tx, params):
        updates = tx.update(params)
        return updates

    def ours(tx, params):
        # The layout is another, the second line is new.
        updates = tx.update(
            params,
        )
        updates = -updates
        return updates

    assert training.changed_lines(theirs, ours) == ["updates = -updates"]
    assert "+    updates = -updates" in training.difference(theirs, ours)


def test_the_command_writes_table_numbers_and_differences(tmp_path):
    done, text = run_quietly(tmp_path, "graph-network", seeds=2)
    assert done
    content = json.loads((tmp_path / run.NUMBERS).read_text(), parse_constant=pytest.fail)
    row = content["programs"]["graph-network"]
    assert row["steps"] == 10
    assert [len(values) for values in row["losses"].values()] == [2, 2, 2]
    assert row["lines"] == 2
    document = (tmp_path / run.DOCUMENT).read_text()
    assert "| graph-network | adam(1e-2)" in document
    assert "| graph-network | adam(1e-2)" in text
    assert document.count("```diff") == 1
    # The loss has no noise, and thirty of their steps are few.
    assert np.median(row["losses"]["adameka"]) < np.median(row["losses"]["theirs"])


def test_a_program_whose_package_is_absent_is_left_out(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "numpyro" else find(name)
    )
    done, text = run_quietly(tmp_path, "svi")
    assert done
    assert "svi is left out: it needs numpyro. Install with: pip install numpyro" in text
    assert not (tmp_path / run.NUMBERS).exists()


def test_an_interrupt_keeps_finished_rows(tmp_path, monkeypatch):
    def train(program, *args, train=training.train, **options):
        if program.project == "tinygp":
            raise KeyboardInterrupt
        return train(program, *args, **options)

    monkeypatch.setattr(run, "train", train)
    done, text = run_quietly(tmp_path, "graph-network", "gaussian-process")
    assert not done
    assert str(tmp_path) in text.replace("\n", "")
    content = json.loads((tmp_path / run.NUMBERS).read_text())
    assert list(content["programs"]) == ["graph-network"]


def test_an_unknown_program_is_named(mekax, tmp_path):
    result = mekax("gallery", "graph-netwerk", "--out", str(tmp_path))
    assert result.exit_code == 2
    assert "Did you mean 'graph-network'?" in result.output


def test_earlier_results_stay(mekax, tmp_path):
    (tmp_path / run.NUMBERS).write_text("{}")
    result = mekax("gallery", "graph-network", "--quick", "--out", str(tmp_path))
    assert result.exit_code == 2
    assert (tmp_path / run.NUMBERS).read_text() == "{}"
