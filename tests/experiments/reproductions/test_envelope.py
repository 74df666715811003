import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.experiments import registry
from mekax.experiments.reproductions import envelope
from mekax.experiments.reproductions.envelope import SCHEDULES, Curve

NAME = "mnist-mlp-128x3"
CONSTANT, WARM_UP, LINEAR, COSINE = range(4)


def curve(losses, rate=0.1, schedule=CONSTANT):
    return Curve(rate, schedule, len(losses) - 1, np.asarray(losses, float))


def verdicts(claims):
    return [verdict.holds for verdict in claims.values()]


def test_sizes_fit():
    for size in (envelope.FULL, envelope.QUICK):
        for names, examples, rates in size["problems"]:
            assert all(name in registry.PROBLEMS for name in names.split("|"))
            assert examples >= size["eval_examples"]
            assert list(rates) == sorted(rates)
        assert list(size["horizons"]) == sorted(size["horizons"])
        assert all(horizon % size["every"] == 0 for horizon in size["horizons"])
        assert size["every"] % envelope.INTERVAL == 0
    for published in envelope.PUBLISHED.values():
        assert published.keys() <= set(envelope.FULL["horizons"])


def test_envelope_is_the_lowest_so_far():
    curves = [curve([3, 1]), curve([4, np.nan, 2, 0.5])]
    assert envelope.envelope(curves).tolist() == [3, 1, 1, 0.5]


def test_smoothing_lags_as_the_published_one_does():
    step = 100 * np.arange(60)
    found = envelope.smoothed(curve(np.exp(-step / 1000)), 100).losses
    ratio = 0.05 / (1 - 0.95 * np.exp(envelope.INTERVAL / 1000))
    np.testing.assert_allclose(found[-10:] * np.exp(step[-10:] / 1000), ratio, rtol=0.05)
    np.testing.assert_allclose(envelope.smoothed(curve(np.full(9, 2.0)), 100).losses, 2)


def test_steps_needed():
    lowest = np.exp(-np.arange(5.0))
    losses = np.array([np.exp(-2.5), 1e-9, 7.0, np.nan])
    np.testing.assert_allclose(envelope.steps_needed(losses, lowest, 20), [50, 80, 0, 0])
    ours = np.exp(-np.array([[0, 1.0, 3.0]]))
    assert envelope.speed_up(ours, 40, [curve(lowest)], 20) == pytest.approx(1.5)


def updates(schedule, steps, gradients):
    tx = envelope.adam({"learning_rate": 0.1, "schedule": float(schedule)}, steps)
    return follow(tx, gradients)


def follow(tx, gradients):
    params = jnp.zeros(2)
    state, made = tx.init(params), []
    for gradient in gradients:
        change, state = tx.update(gradient, state, params)
        made.append(change)
    return np.array(made)


def test_schedules(monkeypatch):
    monkeypatch.setattr(envelope, "WARM_UP", 2)
    gradients = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    plain = follow(optax.adam(0.1, eps_root=1e-8), gradients)
    np.testing.assert_allclose(updates(CONSTANT, 8, gradients), plain, rtol=1e-5)
    factors = {
        WARM_UP: [0.5, 0.5, 1, (2 / 3) ** 0.5, 0.5**0.5],
        LINEAR: [1, 7 / 8, 6 / 8],
        COSINE: [1, 0.5 * (1 + np.cos(np.pi / 8))],
    }
    for schedule, expected in factors.items():
        found = updates(schedule, 8, gradients) / plain
        np.testing.assert_allclose(found[: len(expected), 0], expected, rtol=1e-4)
    for schedule in (LINEAR, COSINE):
        assert not np.any(updates(schedule, 8, gradients)[-1])


def test_run(tmp_path):
    problem = (("digits-logistic", 200, (0.001, 0.01)),)
    result = envelope.run(problem, (20, 40), 10, seeds=2, eval_examples=50)
    assert len(result.claims) == 5  # nothing is published of this problem
    (shown,) = result.tables.values()
    assert [row[:2] for row in shown["rows"]] == [["20", "–"], ["40", "–"]]
    data = result.data["digits-logistic"]
    assert data["step"].tolist() == [0, 10, 20, 30, 40]
    assert data["average"]["median"][0] == pytest.approx(data["envelope"][0])
    assert data["average"]["median"][-1] < data["average"]["median"][0]
    result.figure.savefig(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5000


def test_sweep_has_every_rate_and_schedule():
    problem = registry.load("digits-logistic")
    size = {"seeds": 1, "every": 2, "eval_examples": 20}
    found = envelope.sweep(problem, (0.001, 0.01), (2, 4), **size)
    assert {(c.schedule, c.end) for c in found} == {
        (CONSTANT, 4), (WARM_UP, 4), (LINEAR, 2), (COSINE, 2), (LINEAR, 4), (COSINE, 4),
    }  # fmt: skip
    assert [str(c) for c in found[:2]] == ["0.001 constant", "0.01 constant"]
    assert len(found) == 2 * (len(SCHEDULES) + 2)
    assert all(len(c.losses) == c.end // 2 + 1 for c in found)


def test_claims_and_cells(monkeypatch):
    steps = 10 * np.arange(201)
    falling = 2 * np.exp(-steps / 500)
    swept = [
        Curve(0.01, CONSTANT, 2000, falling),
        Curve(0.001, LINEAR, 1000, 2 * falling[:101]),
        Curve(0.1, COSINE, 2000, np.full(201, np.nan)),
    ]
    smooth = envelope.as_published(swept, 10)
    known = {NAME: {1000: 1.1 * smooth[100], 2000: smooth[200]}}
    monkeypatch.setattr(envelope, "PUBLISHED", known)
    ours = {"last": 2 * np.exp(-steps / 400)[None], "average": falling[None]}
    assert verdicts(envelope.judge(NAME, (1000, 2000), 10, swept, ours)) == [True] * 7
    cells = envelope.row(NAME, 1000, 10, swept, ours)
    assert cells["its best"] == "0.01 constant"
    assert cells["speed-up, last"] == "1.25"
    assert envelope.row(NAME, 2000, 10, swept, ours)["speed-up, last"] == "> 1.00"

    slow = {name: 2 * np.exp(-steps / 600)[None] for name in ours}
    edge = [Curve(0.1, CONSTANT, 2000, 2 * falling), *swept[:1]]
    monkeypatch.setitem(known, NAME, {1000: 2 * smooth[100], 2000: smooth[200] / 2})
    assert verdicts(envelope.judge(NAME, (1000, 2000), 10, edge, slow)) == [False] * 7
