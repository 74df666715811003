import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.experiments import lanes, problems
from mekax.experiments.datasets import Dataset, Images
from mekax.experiments.errors import UsageError
from mekax.experiments.models import LogisticRegression, ResNet
from mekax.experiments.problems.classification import classification
from mekax.experiments.reproductions import (
    acquisitions,
    baselines,
    cost,
    covariance,
    edge,
    gradient_error,
    step_scaling,
    switch,
    trainings,
    trajectories,
)
from mekax.experiments.reproductions.trainings import Trained
from mekax.optimizers import adameka, meka

SEEDS = 2


@pytest.fixture(scope="module")
def toy():
    """Logistic regression of 27 parameters on 64 images of 2×4 pixels."""
    rng = np.random.default_rng(2020)
    label = rng.integers(0, 3, 64)
    image = rng.integers(0, 256, (64, 2, 4, 1)) // 2 + 40 * label[:, None, None, None]
    images = Images(image.astype(np.uint8), label.astype(np.int32))
    dataset = Dataset(images, images, np.full(1, 90.0, np.float32), np.full(1, 60.0, np.float32))
    return classification("toy", dataset, LogisticRegression(3), batch_size=8, epochs=1)


def invented(values, looks=8, **gauges):
    """Trainings that end at given train losses, of shape (settings, seeds)."""
    curve = np.repeat(np.asarray(values, float)[..., None], looks, axis=-1)
    measures = {"train_loss": curve, "test_loss": curve, "test_accuracy": 1 - 0.1 * curve}
    whole = {name: np.broadcast_to(np.asarray(v, float), curve.shape) for name, v in gauges.items()}
    return Trained(np.arange(1, looks + 1), curve, measures, whole)


@pytest.fixture
def untrained(monkeypatch):
    """Put invented losses and gauges in the place of trainings; returns which were asked for."""
    asked = []

    def replace(module, **gauges):
        def train(problem, method, settings, seeds, budget, label, report):
            method.build(settings[0], budget.steps).init(problem.init(jax.random.key(0)))
            asked.append(label)
            return invented(np.full((len(settings), seeds), 0.5), **gauges)

        monkeypatch.setattr(module, "train", train)
        return asked

    return replace


def verdicts(claims):
    return [claim.holds for claim in claims]


def is_picture(path):
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000


def test_sizes_fit():
    modules = (step_scaling, gradient_error, edge, covariance, switch, baselines, cost)
    for module in modules:
        for size in (module.QUICK, module.FULL):
            parts = getattr(size, "problems", None) or [size[:4]]
            for name, examples, batch_size, *_ in parts:
                assert name in problems.PROBLEMS
                assert examples is None or batch_size <= examples
            looks = getattr(size, "looks", 4)
            steps = [part[3] for part in parts if len(part) > 3]
            assert all(isinstance(count, int) and count % looks == 0 for count in steps)
    for size in (edge.QUICK, edge.FULL):
        assert size.minibatch_steps % size.looks == 0


def test_absent_data_are_stood_in_for_in_the_quick_version_alone():
    small = trainings.load("mnist", True, 100, 50)
    assert small.name == "digits"
    assert small.examples == 100
    assert len(small.test["label"]) == 50
    with pytest.raises(UsageError, match="prepared dataset 'mnist'"):
        trainings.load("mnist", False)
    dataset = {name: entry.dataset for name, entry in problems.PROBLEMS.items()}
    assert all(dataset[there] is None for there in trainings.STAND_INS.values())


def test_trainings_are_sorted_by_setting_and_seed(toy):
    method = lanes.Method(lambda s, steps: optax.with_extra_args_support(optax.sgd(s["rate"])))
    budget = lanes.Budget(4, 8, 2, 64)
    rates = [{"rate": 0.0}, {"rate": 0.1}]
    found = trainings.train(toy, method, rates, SEEDS, budget, "sgd")
    assert found.loss.shape == (2, SEEDS, 4)
    losses = found.measures["train_loss"]
    assert losses.shape == (2, SEEDS, 2)
    assert np.array_equal(losses[0, :, 0], losses[0, :, 1])
    assert np.all(losses[1, :, 1] < losses[1, :, 0])
    assert invented([[np.nan, 1.0]]).final().tolist() == [[np.inf, 1.0]]


class TestTrajectories:
    def test_all_paths(self, tmp_path):
        paths = trajectories.compute(trajectories.Size(20), 1, names=(trajectories.EXACT,))
        assert paths[trajectories.EXACT].shape == (1, 100, 2)
        heights = trajectories._height(paths[trajectories.EXACT][0])
        assert np.all(np.diff(heights) <= 0)
        line = paths[trajectories.EXACT]
        invented = dict.fromkeys(trajectories.NAMES, line[:, :20] + 0.1)
        invented[trajectories.EXACT] = line
        claims = trajectories.judge(invented, invented)
        assert not any(verdicts(claims[:2]))
        trajectories._draw(tmp_path, invented, True)
        assert is_picture(tmp_path / "trajectories.png")


class TestAcquisitions:
    def test_quick_run(self, tmp_path, monkeypatch):
        monkeypatch.setattr(acquisitions, "QUICK", acquisitions.Size(models=20))
        result = acquisitions.run(tmp_path, True, SEEDS)
        assert verdicts(result.claims) == [True] * 6
        assert is_picture(tmp_path / "acquisitions.png")

    def test_claims_can_fail(self):
        long = np.full((1, 4), 1000.0)
        chosen = dict.fromkeys(
            ("PI", "PI without value noise", "PI down", "EI down", "quadratic down"), long
        )
        chosen |= {"EI": 0 * long, "EI less noise": long, "EI by reach": 0 * long[..., None]}
        chosen |= {"uncertain": long > 0}
        assert verdicts(acquisitions.judge(chosen)) == [False] * 6


class TestStepScaling:
    def test_a_multiple_of_one_is_ours(self, toy):
        budget = lanes.Budget(12, 8, 2, 64)
        ours = trainings.train(
            toy, lanes.Method(lambda s, steps: adameka()), [{}], 1, budget, "ours"
        )
        replayed = lanes.Method(lambda s, steps: step_scaling.replayed(s["multiple"]))
        settings = [{"multiple": c} for c in (1.0, 0.1)]
        found = trainings.train(toy, replayed, settings, 1, budget, "replayed")
        np.testing.assert_allclose(found.loss[0], ours.loss[0], rtol=1e-3)
        assert found.loss[1, 0, -1] > found.loss[0, 0, -1]

    def test_verdicts_and_picture(self, tmp_path):
        multiples = (0.1, 1.0, 10.0)
        short, right, long = (
            np.abs(np.log10(multiples) - c)[:, None] + np.ones((1, SEEDS)) for c in (-1, 0, 1)
        )
        losses = {"PI": right, "EI": long, "quadratic": short, "ours": right}
        assert verdicts(step_scaling.judge("x", multiples, losses)) == [True] * 4
        wrong = {"PI": long, "EI": long, "quadratic": right, "ours": short}
        assert verdicts(step_scaling.judge("x", multiples, wrong)) == [False] * 4
        step_scaling._draw(tmp_path, multiples, {"x": losses, "y": wrong}, True)
        assert is_picture(tmp_path / "step-scaling.png")


class TestGradientError:
    def test_full_gradient(self, toy, monkeypatch):
        monkeypatch.setattr(gradient_error, "CHUNK", 16)
        params = toy.init(jax.random.key(0))
        found = gradient_error.full_gradient(toy, params, toy.data)
        expected = jax.grad(lambda p: toy.losses(p, toy.data, None).mean())(params)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)

    def test_without_noise_the_batch_is_the_truth(self, toy):
        method = lanes.Method(gradient_error._remembering(meka), gauges=gradient_error.gauges(toy))
        found = trainings.train(toy, method, [{}], 1, lanes.Budget(6, 64, 3, 64), "whole")
        gauges = {name: values[0, 0] for name, values in found.gauges.items()}
        assert np.all(gauges["batch error"] < 1e-5)
        assert np.all(gauges["filter error"] > gauges["batch error"])
        assert np.all((gauges["coverage"] >= 0) & (gauges["coverage"] <= 1))
        assert np.all(gauges["slope"] > 0.5)
        ratio = (gauges["filter error"] / gauges["stated error"]) ** 2
        np.testing.assert_allclose(gauges["normalized error"], ratio, rtol=1e-4)

    def test_verdicts_and_picture(self, tmp_path):
        gauges = dict.fromkeys(("innovation", "normalized error", "slope", "stated error"), 1.0)
        gauges |= {"true": 1.0, "batch error": 5.0, "filter error": 1.0, "coverage": 0.95}
        right = invented([[1.0, 1.0]], **gauges)
        names = (gradient_error.FIXED, gradient_error.PUBLISHED, gradient_error.OURS)
        found = dict.fromkeys(names, right)
        assert verdicts(gradient_error.judge(found)) == [True] * 11
        wrong = invented([[1.0, 1.0]], **dict.fromkeys(gauges, 20.0))
        assert verdicts(gradient_error.judge(dict.fromkeys(names, wrong))) == [False] * 11
        gradient_error._draw(tmp_path, "toy", found, True)
        assert is_picture(tmp_path / "gradient-error.png")


class TestEdge:
    def test_sharpness_is_the_largest_eigenvalue(self):
        bend = jnp.array([3.0, -5.0, 0.1])
        found = edge.sharpness(lambda w: 0.5 * jnp.sum(bend * w**2), jnp.ones(3))
        assert float(found) == pytest.approx(-5.0, rel=1e-2)

    def test_newton_steps(self):
        params = jnp.array([3.0])
        tx = edge.newton_steps(2.0)
        updates, state = tx.update(
            4 * params, tx.init(params), params, value_fn=lambda w: 2 * jnp.sum(w**2)
        )
        assert updates.tolist() == pytest.approx([-3.0])  # as far as the parameters are long
        assert float(state.step_size) == pytest.approx(0.25)

    def test_run(self, toy, tmp_path, monkeypatch, untrained):
        asked = untrained(edge, sharpness=4.0, **{"step size": 0.5})
        monkeypatch.setattr(edge, "load", lambda *words: toy)
        result = edge.run(tmp_path, True, SEEDS)
        assert asked == [
            f"{whose}, {regime}"
            for regime in (edge.FULL_BATCH, edge.MINIBATCH)
            for whose in ("multiples", "ours")
        ]
        assert verdicts(result.claims) == [True] * 5
        assert result.claims[0].measured == pytest.approx(2)
        assert len(result.tables[0].rows) == 8
        assert is_picture(tmp_path / "edge.png")

    def test_gauges(self, toy):
        method = lanes.Method(lambda s, steps: edge.newton_steps(1.0), gauges=edge.gauges(toy))
        found = trainings.train(toy, method, [{}], 1, lanes.Budget(4, 64, 2, 64), "Newton")
        assert np.all(found.gauges["sharpness"] > 0)  # convex
        assert np.all(found.gauges["step size"] * found.gauges["sharpness"] >= 0.9)
        assert found.loss[0, 0, -1] < 0.5 * found.loss[0, 0, 0]

    def test_claims_can_fail(self):
        gauges = {"step size": 1.0, "sharpness": 2.0}
        theirs = invented([[3.0], [2.0], [1.0]], **gauges)
        ours = invented([[0.9]], **gauges)
        found = {edge.FULL_BATCH: (theirs, ours), edge.MINIBATCH: (theirs, ours)}
        assert verdicts(edge.judge(found)) == [True, True, False, True, True]
        worse = invented([[1.0], [2.0], [3.0]], **{**gauges, "sharpness": 9.0})
        late = invented([[1.2]], **gauges)
        found = {edge.FULL_BATCH: (worse, late), edge.MINIBATCH: (worse, late)}
        assert verdicts(edge.judge(found)) == [False, False, True, False, False]


class TestCovariance:
    def test_run(self, toy, tmp_path, monkeypatch, untrained):
        asked = untrained(covariance)
        monkeypatch.setattr(covariance, "load", lambda *words: toy)
        result = covariance.run(tmp_path, True, SEEDS)
        assert len(asked) == 6
        assert verdicts(result.claims) == [True] * 4
        assert len(result.tables[0].rows) == 6
        assert is_picture(tmp_path / "covariance.png")

    def test_constant_may_be_traced(self, toy):
        method = lanes.Method(
            lambda s, steps: trainings.published(covariance="per_leaf", decay=s["decay"])
        )
        settings, budget = [{"decay": 0.9}, {"decay": 0.999}], lanes.Budget(8, 8, 2, 64)
        found = trainings.train(toy, method, settings, 1, budget, "decays")
        assert np.isfinite(found.loss).all()
        assert found.loss[0, 0, 1] == pytest.approx(found.loss[1, 0, 1], rel=1e-3)
        assert found.loss[0, 0, -1] != found.loss[1, 0, -1]

    def test_claims_can_fail(self):
        flat = {name: np.ones((3, SEEDS)) for name in ("scalar", "per_leaf", "diagonal")}
        assert verdicts(covariance.judge({"x": flat})) == [True, True]
        steep = {name: np.array([[1.0], [2.0], [4.0]]) for name in flat}
        steep["diagonal"] = steep["diagonal"] / 2
        assert verdicts(covariance.judge({"x": steep})) == [False, False]


class TestCost:
    def test_ratios(self, toy, tmp_path, monkeypatch):
        seconds = iter(range(1, 7))

        def clock(problem, method, setting, batch_size):
            value = next(seconds)
            return lambda: value

        monkeypatch.setattr(cost, "clock", clock)
        monkeypatch.setattr(cost, "load", lambda *words: toy)
        monkeypatch.setattr(cost, "QUICK", cost.Size((("mnist", None, 8),), 2))
        result = cost.run(tmp_path, True, SEEDS)
        ratios = result.data["toy, batch 8"]
        assert [values.tolist() for values in ratios.values()] == [[k, k] for k in range(1, 7)]
        assert verdicts(result.claims) == [False] * 3
        assert is_picture(tmp_path / "cost.png")
        cheap = {"toy": {name: np.ones(2) for name in ratios}}
        assert verdicts(cost.judge(cheap)) == [True] * 3


class TestSwitch:
    def test_fixed_steps_until_the_switch(self, toy, monkeypatch):
        monkeypatch.setattr(switch, "RULES", {switch.OURS: meka})
        found = switch.compute(toy, switch.Size("x", None, 8, 8, 4, 64), 1)[switch.OURS]
        steps = found.gauges["step size"][:, 0]
        rate = pytest.approx(switch.RATE)
        assert [[step == rate for step in row] for row in steps.tolist()] == [
            [False] * 4,
            [True, False, False, False],
            [True, True, False, False],
            [True] * 4,
        ]
        assert np.all(found.gauges["gradient variance"] > 0)

    def test_verdicts_and_picture(self, tmp_path):
        drifting = np.array([4.0, 3.0, 1.0, 0.5])[:, None, None]
        losses = np.array([[2.0], [1.5], [1.0], [1.0]])
        gauges = {"curvature": drifting, "gradient variance": drifting, "step size": 0.1}
        theirs = invented(losses, **gauges)
        ours = invented(1 + 0 * losses, **dict.fromkeys(gauges, 0.5))
        found = {switch.PUBLISHED: theirs, switch.OURS: ours}
        assert verdicts(switch.judge(found)) == [True] * 3 + [False] * 3 + [True] * 3
        swapped = {switch.PUBLISHED: ours, switch.OURS: theirs}
        assert verdicts(switch.judge(swapped)) == [False] * 3 + [True] * 3 + [False] * 3
        switch._draw(tmp_path, "toy", switch.QUICK, found, True)
        assert is_picture(tmp_path / "switch.png")
        assert len(switch._table(found).rows) == 8


class TestBaselines:
    def test_one_program_for_all(self):
        params, gradient = jnp.array([1.0, -2.0]), jnp.array([0.5, 3.0])
        known = (optax.sgd(0.1), optax.sgd(0.1, momentum=0.9), optax.adam(0.1))
        for kind, tx in enumerate(known):
            mine = baselines.baseline({"rate": 0.1, "kind": float(kind)}, 1)
            state, other = mine.init(params), tx.init(params)
            for _ in range(3):
                updates, state = mine.update(gradient, state, params)
                expected, other = tx.update(gradient, other, params)
                np.testing.assert_allclose(updates, expected, rtol=1e-6)

    def test_run(self, toy, tmp_path, monkeypatch, untrained):
        asked = untrained(baselines)
        monkeypatch.setattr(baselines, "load", lambda *words: toy)
        size = baselines.QUICK._replace(problems=(("mnist", None, 8, 8),))
        monkeypatch.setattr(baselines, "QUICK", size)
        result = baselines.run(tmp_path, True, SEEDS)
        assert asked == ["baselines", baselines.PUBLISHED, baselines.OURS]
        assert verdicts(result.claims) == [True] * 4
        assert "toy for mnist" in result.tables[0].title
        assert is_picture(tmp_path / "baselines.png")

    def test_claims_can_fail(self):
        def curves(loss, rate=None):
            values = np.full((SEEDS, 4), loss)
            return baselines.Curves(rate, np.arange(4), values, 1 - values)

        found = {"SGD": curves(0.2, 0.1), "Adam": curves(0.1, 1e-3)}
        found |= {baselines.PUBLISHED: curves(0.3), baselines.OURS: curves(0.1)}
        assert verdicts(baselines.judge("x", found)) == [False, False, True, True]
        found[baselines.OURS] = curves(np.nan)
        assert verdicts(baselines.judge("x", found))[2:] == [False, False]


class TestResNet:
    def test_thirty_two_layers(self):
        module = ResNet((16, 32, 64), 5, 10)
        images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
        params = jax.eval_shape(module.init, jax.random.key(0), images)
        logits = jax.eval_shape(module.apply, params, images)
        assert logits.shape == (2, 10)
        leaves = jax.tree.leaves(params)
        assert sum(leaf.ndim == 2 for leaf in leaves) == 32
        assert 460_000 < sum(leaf.size for leaf in leaves) < 470_000

    def test_a_step_of_the_rule_traces(self):
        rng = np.random.default_rng(2020)
        images = Images(rng.integers(0, 256, (8, 32, 32, 3), np.uint8), np.arange(8) % 10)
        dataset = Dataset(images, images, np.zeros(3, np.float32), np.ones(3, np.float32))
        module = ResNet((16, 32, 64), 1, 10)  # one block is like the others
        problem = classification("x", dataset, module, batch_size=8, epochs=1)
        tx = trainings.published()

        def one_step():
            params = problem.init(jax.random.key(0))
            carry = lanes.Carry(params, tx.init(params), jax.random.key(1), jnp.int32(0))
            return lanes.one_step(problem, tx)(carry, problem.data)[1]

        assert jax.eval_shape(one_step).shape == ()
