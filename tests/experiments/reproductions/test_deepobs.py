import jax
import numpy as np
import pytest
from mekax.experiments import registry
from mekax.experiments.errors import UsageError
from mekax.experiments.reproductions import deepobs
from mekax.experiments.reproductions.deepobs import ADAM, AVERAGED, OURS

KNOWN = {"SGD": (3.0, 3.0), "Adam": (2.0, 2.5)}


def ended(train, test):
    """Curves of two seeds that end at these losses."""
    losses = {"train_loss": np.full((2, 4), train), "test_loss": np.full((2, 4), test)}
    return {"step": np.arange(4), **losses}


def verdicts(claims):
    return [verdict.holds for verdict in claims.values()]


def test_sizes_fit():
    for size in (deepobs.FULL, deepobs.QUICK):
        for names, examples, epochs, most in size["problems"]:
            wanted, *others = names.split("|")
            assert {wanted, *others} <= registry.PROBLEMS.keys()
            assert wanted in deepobs.RATES
            assert epochs in deepobs.PUBLISHED[wanted]
            assert examples is None or examples >= 128
            assert most >= 1


def test_floor_of_the_quadratic_is_where_the_gradient_vanishes():
    problem = registry.load("quadratic-deep")
    mean = problem.data["x"].mean(axis=0)
    loss = lambda p: problem.losses(p, problem.data, jax.random.key(0)).mean()  # noqa: E731
    value, gradient = jax.jit(jax.value_and_grad(loss))(mean)
    np.testing.assert_allclose(gradient, 0, atol=1e-3)
    assert deepobs.floor(problem) == pytest.approx(value)
    assert deepobs.floor(registry.load("digits-logistic")) == 0


def test_unpublished_epochs_are_refused_before_anything_is_trained():
    with pytest.raises(UsageError, match=r"\(1, 2, 5, 50\), got 3"):
        deepobs.run((("mnist-vae", None, 3, 1),), seeds=1, eval_examples=8)


def test_run(tmp_path):
    result = deepobs.run((("quadratic-deep", 256, 2, 1),), seeds=3, eval_examples=256)
    assert len(result.claims) == 1  # nothing is published of fewer examples
    (shown,) = result.tables.values()
    assert [row[0] for row in shown["rows"]] == [ADAM, OURS, AVERAGED]
    curves = result.data["quadratic-deep"][ADAM]
    assert curves["step"][-1] == 4
    assert curves["train_loss"]["median"][-1] < 353
    result.figure.savefig(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5000


def test_claims_can_hold_and_fail():
    good = {ADAM: ended(2.0, 2.5), OURS: ended(9.0, 9.0), AVERAGED: ended(1.9, 2.4)}
    assert verdicts(deepobs.judge("mnist-vae", good, KNOWN, 0.0)) == [True] * 4
    bad = {ADAM: ended(1.8, 2.2), OURS: ended(1.0, 1.0), AVERAGED: ended(1.9, 2.6)}
    assert verdicts(deepobs.judge("mnist-vae", bad, KNOWN, 1.0)) == [False] * 4
    above = deepobs.judge("mnist-vae", good, {}, 1.0)
    (verdict,) = above.values()
    assert verdict.measured == pytest.approx(0.9)


def test_excess_is_only_of_what_was_trained_here():
    found = {ADAM: ended(2.0, 2.5), OURS: ended(1.75, 2.5), AVERAGED: ended(1.5, 2.5)}
    shown = deepobs.rows(found, KNOWN, 1.0)
    assert shown["SGD, published"]["train loss above the lowest"] == "–"
    assert shown[AVERAGED]["train loss above the lowest"] == pytest.approx(0.5)
    assert "train loss above the lowest" not in deepobs.rows(found, KNOWN, 0.0)[ADAM]
