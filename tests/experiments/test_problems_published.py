"""Problems that others have published figures of."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mekax.experiments import data, registry
from mekax.experiments.data import Dataset, Images
from mekax.experiments.problem import Source
from mekax.experiments.problems import deepobs, learned_optimization


@pytest.fixture(scope="module")
def few():
    """Six noisy images of 28×28 pixels."""
    image = np.random.default_rng(2020).integers(0, 256, (6, 28, 28, 1), np.uint8)
    images = Images(image, np.arange(6))
    return Dataset(images, images, np.full(1, 99.0, np.float32), np.full(1, 9.0, np.float32))


def filled(problem, value):
    """Parameters that are all the same."""
    shapes = jax.eval_shape(problem.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, value, leaf.dtype), shapes)


def from_zeros(problem):
    """Losses of all examples, as trained and as measured, where all parameters are 0."""
    zeros = filled(problem, 0)
    losses = jax.jit(problem.losses)(zeros, problem.data, jax.random.key(1))
    return losses, jax.jit(problem.measure)(zeros, problem.data)["loss"]


class TestLearnedOptimization:
    def test_weights_are_cut_off_at_two_deviations(self):
        module = learned_optimization.CutMLP((256, 3))
        params = module.init(jax.random.key(0), jnp.zeros((1, 400)))["params"]
        kernel = params["Dense_0"]["kernel"] * 20  # the root of fan-in
        assert np.std(kernel) == pytest.approx(0.8796, rel=0.01)
        assert 1.99 < np.abs(kernel).max() <= 2.0001
        assert not np.any(params["Dense_0"]["bias"])

    def test_losses_of_networks_that_know_nothing(self, few, monkeypatch):
        monkeypatch.setattr(data, "prepared", lambda *words: few)
        entropies = from_zeros(learned_optimization.classifier("x", Source()))
        np.testing.assert_allclose(entropies, np.log(10) * np.ones((2, 6)), rtol=1e-6)
        errors = from_zeros(learned_optimization.autoencoder("x", Source()))
        gray = few.train.image.reshape(6, -1) / 255 - 0.5
        np.testing.assert_allclose(errors, [np.mean(gray**2, axis=1)] * 2, rtol=1e-5)

    def test_pixels_are_divided_by_255_and_not_centered(self, few, monkeypatch):
        monkeypatch.setattr(data, "prepared", lambda *words: few)
        problem = learned_optimization.classifier("x", Source())
        params = problem.init(jax.random.key(0))
        logits = learned_optimization.CutMLP((128, 128, 128, 10)).apply(
            params, problem.data["image"] / 255
        )
        expected = -jax.nn.log_softmax(logits)[jnp.arange(6), problem.data["label"]]
        losses = problem.losses(params, problem.data, jax.random.key(0))
        np.testing.assert_allclose(losses, expected, rtol=1e-5)


class TestDeepobs:
    def test_quadratic_is_the_published_one(self):
        problem = registry.load("quadratic-deep")
        # What DeepOBS records of the first 896 test examples before the first step.
        start = problem.init(jax.random.key(0))
        assert problem.evaluate(start)["test_loss"] == pytest.approx(353.447, abs=1e-3)
        eigenvalues = np.linalg.eigvalsh(deepobs.hessian())
        assert np.all((eigenvalues[:90] > 0) & (eigenvalues[:90] < 1))
        assert np.all((eigenvalues[90:] > 30) & (eigenvalues[90:] < 60))

    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize("transposed", [False, True])
    def test_convolution_is_that_of_flax(self, stride, transposed):
        x = jax.random.normal(jax.random.key(0), (8, 6, 3))
        ours = deepobs.Convolution(5, stride, transposed)
        params = ours.init(jax.random.key(1), x)
        kind = nn.ConvTranspose if transposed else nn.Conv
        theirs = kind(5, (4, 4), (stride, stride), padding="SAME")
        np.testing.assert_allclose(
            ours.apply(params, x), theirs.apply(params, x), rtol=1e-5, atol=1e-5
        )

    def test_autoencoder_that_knows_nothing(self, few):
        problem = deepobs.autoencoder("x", few, batch_size=2, epochs=1)
        shapes = jax.tree.leaves(jax.eval_shape(problem.init, jax.random.key(0)))
        assert sum(leaf.size for leaf in shapes) == 10_151_489
        gray = few.train.image.reshape(6, -1) / 255 - 0.5
        np.testing.assert_allclose(from_zeros(problem), [np.sum(gray**2, axis=1)] * 2, rtol=1e-4)

    def test_autoencoder_drops_out_only_while_it_trains(self, few):
        problem = deepobs.autoencoder("x", few, batch_size=2, epochs=1)
        params = filled(problem, 0.01)
        image = {"image": problem.data["image"][0]}
        loss = jax.jit(problem.loss)
        trained = [loss(params, image, jax.random.key(seed)) for seed in (1, 2)]
        assert not np.isclose(*trained, rtol=1e-5)
        one = jax.tree.map(lambda leaf: leaf[None], image)
        measure = jax.jit(lambda params: problem.measure(params, one)["loss"])
        z = jax.jit(problem.loss, static_argnums=3)
        undropped = [z(params, image, jax.random.key(seed), True) for seed in (1, 2)]
        np.testing.assert_allclose(measure(params), np.mean(undropped), rtol=1e-3)
