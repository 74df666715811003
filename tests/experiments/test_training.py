import jax
import numpy as np
import pytest
from mekax.experiments import program, schedule, training
from mekax.experiments.data_order import batches
from mekax.experiments.optimizer_specs import parse
from mekax.experiments.runs import Run


def trained(problem, compiled, optimizer, seed, epochs=3):
    run = Run(problem.name, parse(optimizer), seed)
    training.train(run, problem, compiled, schedule.of_epochs(epochs, 6, 4))
    return run


def test_same_seed_same_run_whatever_the_chunks(parabola, monkeypatch):
    compiled = program.compile_program(parabola, "sgd", 4)
    first = trained(parabola, compiled, "sgd:0.1", 7)
    monkeypatch.setattr(training, "_CHUNK_SECONDS", 0.0)  # one step at a time
    second = trained(parabola, compiled, "sgd:0.1", 7)
    assert len(second.chunks) == 18
    np.testing.assert_array_equal(first.record("loss"), second.record("loss"))
    other = trained(parabola, compiled, "sgd:0.1", 8)
    assert not np.array_equal(first.record("loss"), other.record("loss"))


def test_against_a_plain_loop(parabola):
    run = trained(parabola, program.compile_program(parabola, "sgd", 4), "sgd:0.3", 2)
    init_key, key = jax.random.split(jax.random.key(2))
    params, losses = parabola.init(init_key), []
    for step in range(18):
        rows = batches(2, step, 1, 24, 4)[0]
        batch = {"x": parabola.data["x"][rows]}
        batch_key = jax.random.fold_in(key, step)

        def loss(params, batch=batch, batch_key=batch_key):
            return parabola.losses(params, batch, batch_key).mean()

        value, grads = jax.value_and_grad(loss)(params)
        losses.append(value)
        params = {"w": params["w"] - 0.3 * grads["w"]}
    np.testing.assert_allclose(run.record("loss"), losses, rtol=1e-4)
    assert run.final("train_loss") == pytest.approx(parabola.evaluate(params)["train_loss"], 1e-4)


def test_divergence_stops_the_run(parabola):
    compiled = program.compile_program(parabola, "sgd", 4)
    run = trained(parabola, compiled, "sgd:100", 0, epochs=100)
    assert run.status == "diverged"
    assert run.steps < 600
    assert run.final("train_loss") == np.inf
    assert np.isnan(run.final("test_accuracy"))


def test_budget_of_seconds(parabola):
    compiled = program.compile_program(parabola, "sgd", 4)
    run = Run("parabola", parse("sgd"), 0)
    training.train(run, parabola, compiled, schedule.of_seconds(0.02, 5))
    assert run.status == "finished"
    assert run.seconds >= 0.02
    assert run.evaluations[-1].step == run.steps
    assert run.record("seconds").shape == (run.steps,)


def test_each_epoch_sees_every_example_once():
    rows = np.concatenate([batches(0, step, 1, 24, 4)[:1] for step in range(12)])
    for epoch in (rows[:6], rows[6:]):
        assert sorted(epoch.ravel()) == list(range(24))
    assert not np.array_equal(rows[:6], rows[6:])


def test_incomplete_batch_is_left_out():
    rows = np.concatenate([batches(0, step, 1, 10, 4)[:1] for step in range(2)])
    assert len(set(rows.ravel())) == 8
