import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.experiments import registry
from mekax.experiments.data import Dataset, Images
from mekax.experiments.errors import UsageError
from mekax.experiments.models import MLP, ResNet
from mekax.experiments.problems.classification import classification
from mekax.experiments.reproductions import (
    acquisitions,
    baselines,
    cost,
    covariance,
    edge,
    gradient_error,
    long_run,
    noisy_quadratic,
    ode_tradeoff,
    step_scaling,
    switch,
    trainings,
    trajectories,
)
from mekax.experiments.train import one_step, start
from mekax.optimizers import adameka

SEEDS = 2


@pytest.fixture(scope="module")
def toy():
    """Logistic regression of 27 parameters on 64 images of 2×4 pixels."""
    rng = np.random.default_rng(2020)
    label = rng.integers(0, 3, 64)
    image = rng.integers(0, 256, (64, 2, 4, 1)) // 2 + 40 * label[:, None, None, None]
    images = Images(image.astype(np.uint8), label.astype(np.int32))
    dataset = Dataset(images, images, np.full(1, 90.0, np.float32), np.full(1, 60.0, np.float32))
    return classification("toy", dataset, MLP((), 3), batch_size=8, epochs=1)


def invented(losses, evaluations=8, **metrics):
    """Curves of a training that ends at given train losses, of shape (seeds,)."""
    curve = np.repeat(np.asarray(losses, float)[:, None], evaluations, axis=-1)
    measures = {"train_loss": curve, "test_loss": curve, "test_accuracy": 1 - 0.1 * curve}
    known = {name: np.full(curve.shape, value) for name, value in metrics.items()}
    return {"step": np.arange(1, evaluations + 1), **measures, **known}


@pytest.fixture
def untrained(monkeypatch):
    """Put invented losses and metrics in the place of trainings; returns which were asked for."""
    asked = []

    def replace(module, **metrics):
        def train(problem, build, settings=({},), *, seeds, label, **budget):
            build(settings[0]).init(problem.init(jax.random.key(0)))
            asked.append(label)
            return [invented([0.5] * seeds, **metrics) for _ in settings]

        monkeypatch.setattr(module, "train", train)
        return asked

    return replace


def verdicts(claims):
    return [verdict.holds for verdict in claims.values()]


def is_picture(figure, folder):
    figure.savefig(folder / "picture.png")
    return (folder / "picture.png").stat().st_size > 5000


def test_sizes_fit():
    for module in (step_scaling, gradient_error, edge, covariance, switch, baselines, cost):
        for size in (module.QUICK, module.FULL):
            part = [size.get(key) for key in ("problem", "examples", "batch_size", "steps")]
            for names, examples, batch_size, *steps in size.get("problems", [part]):
                assert all(name in registry.PROBLEMS for name in names.split("|"))
                assert examples is None or batch_size <= examples
                assert all(count % size["evaluations"] == 0 for count in steps)
    for size in (edge.QUICK, edge.FULL):
        assert size["minibatch_steps"] % size["evaluations"] == 0


def test_absent_data_are_stood_in_for_where_a_stand_in_is_named():
    small = trainings.load("mnist|digits", 100, 50)
    assert small.name == "digits"
    assert small.examples == 100
    assert len(small.test["label"]) == 50
    with pytest.raises(UsageError, match="prepared dataset 'mnist'"):
        trainings.load("mnist")


def test_curves_by_setting_and_seed(toy):
    still, moving = trainings.train(
        toy,
        lambda setting: optax.sgd(setting["rate"]),
        [{"rate": 0.0}, {"rate": 0.1}],
        seeds=SEEDS,
        label="sgd",
        steps=4,
        batch_size=8,
        evaluations=2,
        eval_examples=64,
    )
    assert still["step"].tolist() == [2, 4]
    assert still["train_loss"].shape == (SEEDS, 2)
    assert np.array_equal(still["train_loss"][:, 0], still["train_loss"][:, 1])
    assert np.all(moving["train_loss"][:, 1] < moving["train_loss"][:, 0])
    assert trainings.final(np.array([[np.nan], [1.0]])).tolist() == [np.inf, 1.0]


class TestTrajectories:
    def test_all_paths(self, tmp_path):
        paths = trajectories.compute(20, 1, names=(trajectories.EXACT,))
        line = paths[trajectories.EXACT]
        assert line.shape == (1, 100, 2)
        assert np.all(np.diff(trajectories.excess_loss(line[0])) <= 0)
        shifted = dict.fromkeys(trajectories.OPTIMIZERS, line[:, :20] + 0.1)
        shifted[trajectories.EXACT] = line
        claims = trajectories.judge(shifted, shifted)
        assert len(claims) == 7
        assert not any(verdicts(claims)[:2])
        assert is_picture(trajectories.draw(shifted), tmp_path)


class TestNoisyQuadratic:
    def test_quick_run_draws_and_judges(self, tmp_path):
        result = noisy_quadratic.run(**noisy_quadratic.QUICK, seeds=3)
        assert verdicts(result.claims) == [True] * 6
        assert is_picture(result.figure, tmp_path)
        for name in (noisy_quadratic.SGD, noisy_quadratic.FILTER):
            assert len(result.data["step"]) == len(result.data[name]["median"])

    def test_claims_can_fail(self):
        flat = {name: np.ones((3, 100)) for name in noisy_quadratic.OPTIMIZERS}
        flat[noisy_quadratic.EXACT] /= 3
        flat[noisy_quadratic.PUBLISHED] *= 2
        flat[noisy_quadratic.OURS] *= 2
        assert verdicts(noisy_quadratic.judge(flat)) == [False] * 6


class TestAcquisitions:
    def test_run(self, tmp_path):
        result = acquisitions.run(models=20, seeds=SEEDS)
        assert verdicts(result.claims) == [True] * 6
        assert is_picture(result.figure, tmp_path)

    def test_claims_can_fail(self):
        long = np.full((1, 4), 1000.0)
        chosen = dict.fromkeys(("PI", "PI without value noise", "PI down", "quadratic down"), long)
        chosen |= {"EI": 0 * long, "EI less noise": long, "EI by reach": 0 * long[..., None]}
        chosen |= {"uncertain": long > 0}
        assert verdicts(acquisitions.judge(chosen)) == [False] * 6


class TestStepScaling:
    def test_a_multiple_of_one_is_ours(self, toy):
        def losses(build, *settings):
            curves = trainings.train(
                toy, build, settings, seeds=1, label="x", steps=12, batch_size=8, evaluations=12
            )
            return [values["train_loss"][0] for values in curves]

        (ours,) = losses(lambda setting: adameka(), {})
        multiples = [{"multiple": c} for c in (1.0, 0.1)]
        same, shorter = losses(step_scaling.RULES["ours"], *multiples)
        np.testing.assert_allclose(same, ours, rtol=1e-3)
        assert shorter[-1] > same[-1]

    def test_verdicts_and_picture(self, tmp_path):
        multiples = (0.1, 1.0, 10.0)
        short, right, long = (
            np.abs(np.log10(multiples) - c)[:, None] + np.ones((1, SEEDS)) for c in (-1, 0, 1)
        )
        losses = {"PI": right, "EI": long, "quadratic": short, "ours": right}
        assert verdicts(step_scaling.judge("x", multiples, losses)) == [True] * 4
        wrong = {"PI": long, "EI": long, "quadratic": right, "ours": short}
        assert verdicts(step_scaling.judge("x", multiples, wrong)) == [False] * 4
        assert is_picture(step_scaling.draw(multiples, {"x": losses, "y": wrong}), tmp_path)


class TestGradientError:
    def test_full_gradient(self, toy, monkeypatch):
        monkeypatch.setattr(gradient_error, "CHUNK", 16)
        params = toy.init(jax.random.key(0))
        found = gradient_error.full_gradient(toy, params, toy.data)
        expected = jax.grad(lambda p: toy.losses(p, toy.data, None).mean())(params)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)

    def test_without_noise_the_batch_is_the_truth(self, toy):
        budget = {"steps": 6, "batch_size": 64, "evaluations": 3, "eval_examples": 64}
        curves = gradient_error.compute(toy, gradient_error.OURS, seeds=1, **budget)
        assert np.all(curves["batch error"] < 1e-5)
        assert np.all(curves["filter error"] > curves["batch error"])
        assert np.all((curves["coverage"] >= 0) & (curves["coverage"] <= 1))
        assert np.all(curves["slope"] > 0.5)
        ratio = (curves["filter error"] / curves["stated error"]) ** 2
        np.testing.assert_allclose(curves["normalized error"], ratio, rtol=1e-4)

    def test_verdicts_and_picture(self, tmp_path):
        metrics = dict.fromkeys(("innovation", "normalized error", "slope", "stated error"), 1.0)
        metrics |= {"true": 1.0, "batch error": 5.0, "filter error": 1.0, "coverage": 0.95}
        found = dict.fromkeys(gradient_error.RULES, invented([1.0, 1.0], **metrics))
        assert verdicts(gradient_error.judge(found)) == [True] * 11
        wrong = invented([1.0, 1.0], **dict.fromkeys(metrics, 20.0))
        assert verdicts(gradient_error.judge(dict.fromkeys(found, wrong))) == [False] * 11
        assert is_picture(gradient_error.draw("toy", found), tmp_path)


class TestEdge:
    def test_sharpness_is_the_largest_eigenvalue(self):
        curvature = jnp.array([3.0, -5.0, 0.1])
        found = edge.sharpness(lambda w: 0.5 * jnp.sum(curvature * w**2), jnp.ones(3))
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
        asked = untrained(edge, sharpness=4.0, step_size=0.5)
        monkeypatch.setattr(edge, "load", lambda *words: toy)
        result = edge.run(**edge.QUICK, seeds=SEEDS)
        assert asked == [
            f"{whose}, {regime}"
            for regime in (edge.FULL_BATCH, edge.MINIBATCH)
            for whose in ("multiples", "ours")
        ]
        assert verdicts(result.claims) == [True] * 5
        assert next(iter(result.claims.values())).measured == pytest.approx(2)
        assert len(next(iter(result.tables.values()))["rows"]) == 8
        assert is_picture(result.figure, tmp_path)

    def test_metrics(self, toy):
        budget = {"steps": 4, "batch_size": 64, "evaluations": 2}
        curves = edge.compute(toy, edge.FULL_BATCH, seeds=1, **budget)[edge.ONE]
        assert np.all(curves["sharpness"] > 0)  # convex
        assert np.all(curves["step_size"] * curves["sharpness"] >= 0.9)
        assert curves["train_loss"][0, -1] < 0.5 * np.log(3)  # half of a guess

    def test_claims_can_fail(self):
        def found(*losses, sharpness):
            curves = [invented([x], step_size=1.0, sharpness=sharpness) for x in losses]
            by_name = dict(zip((*edge.NAMES, edge.OURS), curves, strict=True))
            return {edge.FULL_BATCH: by_name, edge.MINIBATCH: by_name}

        right = found(3.0, 2.0, 1.0, 0.9, sharpness=2.0)
        assert verdicts(edge.judge(right)) == [True, True, False, True, True]
        wrong = found(1.0, 2.0, 3.0, 1.2, sharpness=9.0)
        assert verdicts(edge.judge(wrong)) == [False, False, True, False, False]


class TestCovariance:
    def test_run(self, toy, tmp_path, monkeypatch, untrained):
        asked = untrained(covariance)
        monkeypatch.setattr(covariance, "load", lambda *words: toy)
        result = covariance.run(**covariance.QUICK, seeds=SEEDS)
        assert len(asked) == 6
        assert verdicts(result.claims) == [True] * 4
        assert len(next(iter(result.tables.values()))["rows"]) == 6
        assert is_picture(result.figure, tmp_path)

    def test_constant_may_be_traced(self, toy):
        fast, slow = trainings.train(
            toy,
            lambda s: trainings.published(covariance="per_leaf", decay=s["decay"]),
            [{"decay": 0.9}, {"decay": 0.999}],
            seeds=1,
            label="decays",
            steps=8,
            batch_size=8,
            evaluations=8,
        )
        assert np.isfinite([fast["train_loss"], slow["train_loss"]]).all()
        assert fast["train_loss"][0, 0] == pytest.approx(slow["train_loss"][0, 0], rel=1e-3)
        assert fast["train_loss"][0, -1] != slow["train_loss"][0, -1]

    def test_claims_can_fail(self):
        flat = {name: np.ones((3, SEEDS)) for name in ("scalar", "per_leaf", "diagonal")}
        assert verdicts(covariance.judge({"x": flat})) == [True, True]
        steep = {name: np.array([[1.0], [2.0], [4.0]]) for name in flat}
        steep["diagonal"] = steep["diagonal"] / 2
        assert verdicts(covariance.judge({"x": steep})) == [False, False]


class TestCost:
    def test_ratios(self, toy, tmp_path, monkeypatch):
        seconds = iter(range(1, 7))

        def clock(problem, optimizer, batch_size):
            value = next(seconds)
            return lambda: value

        monkeypatch.setattr(cost, "clock", clock)
        monkeypatch.setattr(cost, "load", lambda *words: toy)
        result = cost.run((("mnist", None, 8),), 2, seeds=SEEDS)
        ratios = result.data["toy, batch 8"]
        assert [values.tolist() for values in ratios.values()] == [[k, k] for k in range(1, 7)]
        assert verdicts(result.claims) == [False] * 3
        assert is_picture(result.figure, tmp_path)
        cheap = {"toy": {name: np.ones(2) for name in ratios}}
        assert verdicts(cost.judge(cheap)) == [True] * 3

    def test_clock(self, toy):
        assert 0 < cost.clock(toy, trainings.named("SGD", lambda _: optax.sgd(0.1)), 8)() < 1


class TestSwitch:
    def test_fixed_steps_until_the_switch(self, toy):
        budget = {"steps": 8, "batch_size": 8, "evaluations": 4, "eval_examples": 64}
        curves = switch.compute(toy, switch.OURS, seeds=1, **budget)
        rate = pytest.approx(switch.RATE)
        fixed = [[step == rate for step in c["step size"][0].tolist()] for c in curves.values()]
        assert fixed == [
            [False] * 4,
            [True, False, False, False],
            [True, True, False, False],
            [True] * 4,
        ]
        assert np.all(curves[switch.EARLY]["gradient variance"] > 0)

    def test_verdicts_and_picture(self, tmp_path):
        drifting = dict(zip(switch.SWITCHES, (4.0, 3.0, 1.0, 0.5), strict=True))
        metrics = ("curvature", "gradient variance", "step size")
        theirs = {
            name: invented([loss], **dict.fromkeys(metrics, drift))
            for (name, drift), loss in zip(drifting.items(), (2.0, 1.5, 1.0, 1.0), strict=True)
        }
        ours = dict.fromkeys(drifting, invented([1.0], **dict.fromkeys(metrics, 0.5)))
        found = {switch.PUBLISHED: theirs, switch.OURS: ours}
        assert verdicts(switch.judge(found)) == [True] * 3 + [False] * 3 + [True] * 3
        swapped = {switch.PUBLISHED: ours, switch.OURS: theirs}
        assert verdicts(switch.judge(swapped)) == [False] * 3 + [True] * 3 + [False] * 3
        assert is_picture(switch.draw("toy", found), tmp_path)


class TestBaselines:
    def test_one_program_for_all(self):
        params, gradient = jnp.array([1.0, -2.0]), jnp.array([0.5, 3.0])
        known = (optax.sgd(0.1), optax.sgd(0.1, momentum=0.9), optax.adam(0.1))
        for kind, tx in enumerate(known):
            mine = baselines.baseline({"rate": 0.1, "kind": float(kind)})
            state, other = mine.init(params), tx.init(params)
            for _ in range(3):
                updates, state = mine.update(gradient, state, params)
                expected, other = tx.update(gradient, other, params)
                np.testing.assert_allclose(updates, expected, rtol=1e-6)

    def test_run(self, toy, tmp_path, monkeypatch, untrained):
        asked = untrained(baselines)
        monkeypatch.setattr(baselines, "load", lambda *words: toy)
        size = baselines.QUICK | {"problems": (("mnist|digits", None, 8, 8),)}
        result = baselines.run(**size, seeds=SEEDS)
        assert asked == ["baselines", baselines.PUBLISHED, baselines.OURS]
        assert verdicts(result.claims) == [True] * 4
        assert "toy for mnist" in next(iter(result.tables))
        assert is_picture(result.figure, tmp_path)

    def test_claims_can_fail(self):
        found = {"SGD": invented([2.0] * SEEDS), "Adam": invented([1.0] * SEEDS)}
        found |= {baselines.PUBLISHED: invented([3.0] * SEEDS), baselines.OURS: found["Adam"]}
        assert verdicts(baselines.judge("x", found)) == [False, False, True, True]
        found[baselines.OURS] = invented([np.nan] * SEEDS)
        assert verdicts(baselines.judge("x", found))[2:] == [False, False]
        # Where nobody gets far, a network that has learned nothing is no match.
        found = {"SGD": invented([2.1] * SEEDS), baselines.PUBLISHED: invented([2.302] * SEEDS)}
        found[baselines.OURS] = found["SGD"]
        assert verdicts(baselines.judge("x", found))[::2] == [False, True]


class TestOdeTradeoff:
    def test_run(self, tmp_path, monkeypatch):
        def train(problem, build, *, seeds, label, **budget):
            weight = float(problem.name.rpartition(" ")[-1])
            ends = {"test_cross_entropy": 0.1, "test_accuracy": 0.9}
            ends["test_function_evaluations"] = 50 - 20 * weight
            return [{name: np.full((seeds, 1), value) for name, value in ends.items()}]

        monkeypatch.setattr(ode_tradeoff, "train", train)
        result = ode_tradeoff.run(**ode_tradeoff.QUICK, seeds=SEEDS)
        assert verdicts(result.claims) == [True] * 4
        evaluations = result.data["derivative 3"][1.0]["test_function_evaluations"]
        assert evaluations.tolist() == [30] * SEEDS
        assert is_picture(result.figure, tmp_path)

    def test_claims_can_fail(self):
        ends = {"test_function_evaluations": np.ones(1)}
        by_weight = {
            weight: ends | {"test_cross_entropy": np.full(1, loss)}
            for weight, loss in ((0.0, 1.0), (1e-2, 2.0), (1.0, 1.0))
        }
        assert verdicts(ode_tradeoff.judge({2: by_weight})) == [False, False]


class TestLongRun:
    def test_watches_to_the_end(self, monkeypatch):
        monkeypatch.setattr(long_run, "READINGS", 4)
        monkeypatch.setattr(long_run, "CHUNK", 5)
        seen = long_run.watch(adameka(), jnp.bfloat16, 60)
        assert seen["step"].tolist() == [15, 30, 45, 60]
        assert seen["num_adaptations"][-1] == 59  # the first step measured is none
        assert {len(values) for values in seen.values()} == {4}
        assert np.all(np.isfinite(list(seen.values())))
        assert seen["loss"][-1] < seen["loss"][0]

    def test_verdicts_table_and_picture(self, tmp_path):
        steady = dict.fromkeys((*long_run.STDS, "radius", "microseconds", "megabytes"), 1.0)
        steady |= {"loss": 1.0, "arrays": 40.0, "num_rejected": 0.0}
        readings = {name: np.full((1, 20), value) for name, value in steady.items()}
        readings["step"] = np.arange(20.0)[None]
        assert verdicts(long_run.judge("x", readings)) == [True] * 6
        rising = {name: v * 10.0 ** readings["step"] for name, v in readings.items()}
        rising |= {"step": readings["step"], "num_rejected": 1 + readings["num_rejected"]}
        assert verdicts(long_run.judge("x", rising)) == [False] * 6
        assert "1 → 1" in long_run.cells(readings).values()
        assert is_picture(long_run.draw({"x": readings, "y": rising}), tmp_path)


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

        def loss_of_one_step():
            carry = start(problem, tx, jax.random.key(0))
            return one_step(problem.losses, tx)(carry, problem.data)[1]["loss"]

        assert jax.eval_shape(loss_of_one_step).shape == ()
