"""The training loop: pairs of runs, side by side or one by one, continued after a stop."""

import jax
import numpy as np
import optax
import pytest
from mekax.experiments import checkpoint, train
from mekax.experiments.data import batches
from mekax.experiments.records import Run
from mekax.experiments.registry import OPTIMIZERS, Optimizer

STEPS = 60
SGD = Optimizer("sgd", lambda setting, steps: _sgd(setting["learning_rate"]), averaged=True)
RUNS = [Run({"learning_rate": rate}, seed) for rate in (0.1, 0.01) for seed in (3, 4)]


def _sgd(rate):
    return optax.with_extra_args_support(optax.sgd(rate))


class StoppedError(Exception):
    pass


@pytest.fixture
def often(monkeypatch):
    """Checkpoints after every chunk of steps."""
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "_SHARE", 1e9)


def run_it(problem, optimizer=SGD, runs=RUNS, **options):
    options = {"steps": STEPS, "batch_size": 4, "evaluations": 20, **options}
    return train.train(problem, optimizer, runs, **options)


def assert_same(found, other):
    assert found.status == other.status
    for table, expected in ((found.evaluations, other.evaluations), (found.steps, other.steps)):
        assert table.keys() == expected.keys()
        for name in table.keys() - {"seconds"}:
            np.testing.assert_array_equal(table[name], expected[name])


def test_the_loop_is_plain_training(parabola):
    """Against the loop that a reader would write."""
    found = run_it(parabola, evaluations=3)
    for place, (setting, seed) in enumerate(RUNS):
        tx = _sgd(setting["learning_rate"])
        init_key, step_key = jax.random.split(jax.random.key(seed))
        params = parabola.init(init_key)
        state, losses = tx.init(params), []
        for step, rows in enumerate(batches(seed, 0, STEPS, 24, 4)):
            batch = jax.tree.map(lambda leaf, rows=rows: leaf[rows], parabola.data)
            key = jax.random.fold_in(step_key, step)
            loss = lambda p, batch=batch, key=key: parabola.losses(p, batch, key).mean()  # noqa: E731
            value, grads = jax.value_and_grad(loss)(params)
            losses.append(value)
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        mine = found.steps["run"] == place
        np.testing.assert_allclose(found.steps["loss"][mine], losses, rtol=1e-4, atol=1e-6)
        expected = parabola.evaluate(params)["train_loss"]
        assert found.array("train_loss").reshape(4, 3)[place, -1] == pytest.approx(expected)
        np.testing.assert_allclose(found.params[place]["w"], params["w"], rtol=1e-5)


def test_tables_are_tidy(parabola):
    found = run_it(parabola, evaluations=3)
    table = found.evaluations
    assert list(table)[:6] == ["run", "learning_rate", "seed", "iterate", "step", "seconds"]
    assert {len(column) for column in table.values()} == {4 * 2 * 3}
    assert set(table["step"]) == {20, 40, 60}
    assert found.array("train_loss", "average").shape == (2, 2, 3)
    assert found.array("loss").shape == (2, 2, STEPS)
    assert found.status == ("finished",) * 4
    with pytest.raises(ValueError, match="settings first"):
        run_it(parabola, runs=RUNS[:3]).array("train_loss")


def test_one_by_one_agrees_with_side_by_side(parabola):
    # Not `adameka`: where momentum overshoots this noise-free bowl, rounding decides its next step.
    optimizer = OPTIMIZERS["meka"]
    runs = [Run({}, seed) for seed in range(3)]
    ours = run_it(parabola, optimizer, runs, per_step=True)
    theirs = run_it(parabola, optimizer, runs)
    for name in ("train_loss", "test_loss", "step_size"):
        np.testing.assert_allclose(ours.array(name), theirs.array(name), rtol=1e-3)
    assert {"loss", "step_size", "curvature", "gradient_norm"} < ours.steps.keys()
    assert np.all(np.diff(ours.array("seconds")[0, 0]) > 0)
    assert ours.compile_seconds > 0
    assert run_it(parabola, optimizer, runs, per_step=True).compile_seconds == 0


def test_groups_of_runs_are_joined(parabola, monkeypatch):
    whole = run_it(parabola)
    monkeypatch.setattr(train, "AT_ONCE", 3)
    parted = run_it(parabola)
    np.testing.assert_allclose(parted.array("train_loss"), whole.array("train_loss"), rtol=1e-5)


def test_evaluations_are_where_they_are_asked_for(parabola):
    found = run_it(parabola, evaluations=(0, 7, STEPS), per_step=True)
    assert found.array("step")[0, 0].tolist() == [0, 7, STEPS]


def test_a_budget_of_seconds(parabola):
    found = run_it(parabola, runs=RUNS[:1], seconds=0.2, evaluations=4)
    clock = found.array("seconds", "last")[0, 0]
    assert clock[0] == 0
    assert clock[-1] >= 0.2
    assert 3 <= len(clock) <= 6
    assert len(found.steps["loss"]) == found.evaluations["step"][-1] > STEPS


def test_divergence_ends_a_run_that_is_recorded(parabola):
    runs = [Run({"learning_rate": 50.0}, 0), Run({"learning_rate": 0.1}, 0)]
    assert run_it(parabola, runs=runs).status == ("diverged", "finished")
    found = run_it(parabola, runs=runs, per_step=True)
    assert found.status == ("diverged", "finished")
    assert (found.steps["run"] == 0).sum() < STEPS


def test_metrics_of_ones_own(parabola):
    def metrics(state, params, examples):
        return {"distance": abs(params["w"]), "examples": examples["x"].shape[0]}

    found = run_it(parabola, metrics=metrics, eval_examples=8)
    assert found.array("distance").shape == (2, 2, 20)
    assert set(found.evaluations["examples"]) == {8}


@pytest.mark.parametrize("per_step", [False, True])
def test_a_stopped_training_continues_bit_for_bit(parabola, tmp_path, often, per_step):
    runs = [RUNS[0], RUNS[1]]
    whole = run_it(parabola, runs=runs, per_step=per_step)
    folder = tmp_path / "checkpoint"
    stops = iter([9, 30, 42])

    def stop(progress, at=None):
        if progress.step >= at:
            raise StoppedError

    for at in stops:
        with pytest.raises(StoppedError):
            run_it(
                parabola, runs=runs, per_step=per_step, checkpoint=folder,
                progress=lambda now, at=at: stop(now, at),
            )  # fmt: skip
        assert list(folder.glob("group-0/*"))
    resumed = run_it(parabola, runs=runs, per_step=per_step, checkpoint=folder)
    assert_same(resumed, whole)
    if per_step:
        assert np.all(np.diff(resumed.steps["seconds"][:STEPS]) > 0)
    assert not folder.exists()


def damage(path):
    for file in path.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("damaged", [1, 2])
def test_damaged_checkpoints_give_way(parabola, tmp_path, often, damaged):
    folder = tmp_path / "checkpoint"

    def stop(now):
        if now.step >= 30:
            raise StoppedError

    with pytest.raises(StoppedError):
        run_it(parabola, runs=RUNS[:1], checkpoint=folder, progress=stop)
    newest = sorted(folder.glob("group-0/*"), key=lambda path: -int(path.name))
    assert len(newest) == 2
    for path in newest[:damaged]:
        damage(path)
    said = []
    resumed = run_it(parabola, runs=RUNS[:1], checkpoint=folder, report=said.append)
    assert len(said) == damaged
    assert "is damaged" in said[0]
    assert_same(resumed, run_it(parabola, runs=RUNS[:1]))


def test_a_changed_number_is_noticed(parabola, tmp_path, often, monkeypatch):
    folder = tmp_path / "checkpoint"

    def stop(now):
        if now.step >= 30:
            raise StoppedError

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "_checksum", lambda tree: 1)
        with pytest.raises(StoppedError):
            run_it(parabola, runs=RUNS[:1], checkpoint=folder, progress=stop)
    said = []
    run_it(parabola, runs=RUNS[:1], checkpoint=folder, report=said.append)
    assert len(said) == 2


def test_checkpoints_of_another_training_are_not_taken(parabola, tmp_path, often):
    folder = tmp_path / "checkpoint"

    def stop(now):
        if now.step >= 30:
            raise StoppedError

    with pytest.raises(StoppedError):
        run_it(parabola, runs=RUNS[1:2], checkpoint=folder, progress=stop)
    found = run_it(parabola, runs=RUNS[:1], checkpoint=folder)
    assert_same(found, run_it(parabola, runs=RUNS[:1]))


def test_saving_is_rare(parabola, tmp_path):
    seen = []
    run_it(
        parabola, checkpoint=tmp_path / "checkpoint",
        progress=lambda now: seen.append(list(tmp_path.iterdir())),
    )  # fmt: skip
    assert not any(seen)


def test_an_interrupt_keeps_what_is_done(parabola):
    def interrupt(now):
        if now.runs[0] is RUNS[1] and now.step >= 30:
            raise KeyboardInterrupt

    with pytest.raises(train.InterruptedTraining) as caught:
        run_it(parabola, per_step=True, progress=interrupt)
    found = caught.value.records
    assert found.status == ("finished", "interrupted")
    assert found.steps["step"][-1] >= 30


def test_progress_grows(parabola):
    seen = []
    run_it(parabola, progress=lambda now: seen.append((now.fraction, now.measures(), now.series())))
    fractions = [fraction for fraction, *_ in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert "train_loss" in seen[-1][1]
    assert len(seen[-1][2]["loss"]) == STEPS
