from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mekax.experiments import data, registry
from mekax.experiments.errors import UsageError
from mekax.experiments.models import CNN, MLP, Convolution, Transformer
from mekax.experiments.problems import autoencoder, classification, text

NAMES = [name for name, entry in registry.PROBLEMS.items() if entry.dataset is None]
LARGE = [name for name in NAMES if "for a GPU" in registry.PROBLEMS[name].description]
BUILT_IN = [name for name in NAMES if name not in LARGE]
NEEDS = {"vowels-cde": "aeon", "motion-slds": "aeon"}  # packages that are no dependencies


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_problem(name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    problem = registry.load(name)

    @jax.jit
    def losses(batch):
        params, key = problem.init(jax.random.key(0)), jax.random.key(1)
        one = lambda x: problem.loss(params, *x)  # noqa: E731
        one_by_one = jax.lax.map(one, (batch, jax.random.split(key, 5)))
        return problem.losses(params, batch, key), one_by_one

    together, one_by_one = losses(jax.tree.map(lambda leaf: leaf[:5], problem.data))
    np.testing.assert_allclose(together, one_by_one, rtol=1e-5)
    assert len(jax.tree.leaves(problem.data)[0]) == registry.find(name).training_examples(None)


@pytest.mark.parametrize("name", LARGE)
def test_large_problem(name):
    problem = registry.load(name)
    batch = jax.tree.map(lambda leaf: leaf[:5], problem.data)
    losses = jax.eval_shape(
        lambda key: problem.losses(problem.init(key), batch, key), jax.random.key(0)
    )
    assert losses.shape == (5,)
    assert len(jax.tree.leaves(problem.data)[0]) == registry.find(name).training_examples(None)


def test_evaluation_averages_over_all_examples():
    problem = registry.load("digits-logistic")
    params, of = jax.jit(problem.init)(jax.random.key(3)), jax.jit(problem.losses)
    values = problem.evaluate(params)
    losses = of(params, problem.data, jax.random.key(0))
    np.testing.assert_allclose(values["train_loss"], losses.mean(), rtol=1e-5)
    test = data.digits().test
    batch = {"image": jnp.asarray(test.image), "label": jnp.asarray(test.label)}
    np.testing.assert_allclose(
        values["test_loss"], of(params, batch, jax.random.key(0)).mean(), rtol=1e-5
    )
    assert 0 <= values["test_accuracy"] <= 1


def test_unknown_problem():
    with pytest.raises(UsageError, match="Did you mean 'cifar10'"):
        registry.find("cifar-10")


def test_every_problem_has_one_line():
    for entry in registry.PROBLEMS.values():
        assert entry.description
        assert "\n" not in entry.description
        assert (entry.examples is None) == (entry.dataset is not None)


@pytest.mark.parametrize("model", [MLP((8,), 3), MLP((), 3), CNN((8, 16), 3)])
def test_models_keep_examples_apart(model):
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 2))
    params = jax.jit(model.init)(jax.random.key(1), x[:1])
    apply = jax.jit(model.apply)
    logits = apply(params, x)
    assert logits.shape == (4, 3)
    np.testing.assert_allclose(apply(params, x[2:3])[0], logits[2], rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_is_that_of_flax(stride):
    x = jax.random.normal(jax.random.key(0), (2, 8, 6, 3))
    ours = Convolution(5, stride)
    params = ours.init(jax.random.key(1), x)
    theirs = nn.Conv(5, (3, 3), strides=stride, padding=1, use_bias=False)
    kernel = params["params"]["Dense_0"]["kernel"].reshape(3, 3, 3, 5)
    np.testing.assert_allclose(
        ours.apply(params, x),
        theirs.apply({"params": {"kernel": kernel}}, x),
        rtol=1e-5,
        atol=1e-5,
    )


def test_label_noise_is_in_the_training_labels_only():
    module, options = MLP((), 10), {"batch_size": 8, "epochs": 1}
    clean = classification.classification("clean", data.digits(), module, **options)
    noisy, again = (
        classification.classification("noisy", data.digits(), module, **options, label_noise=0.2)
        for _ in range(2)
    )
    changed = np.asarray(clean.data["label"] != noisy.data["label"])
    assert 0.14 < changed.mean() < 0.22  # a tenth of the random labels is right
    np.testing.assert_array_equal(noisy.data["label"], again.data["label"])
    np.testing.assert_array_equal(clean.test["label"], noisy.test["label"])
    np.testing.assert_array_equal(clean.data["image"], noisy.data["image"])


def test_autoencoder_of_the_mean_image_has_loss_one():
    problem = autoencoder.autoencoder("digits", data.digits(), (8, 4), batch_size=8, epochs=1)
    zeros = jax.tree.map(jnp.zeros_like, problem.init(jax.random.key(0)))
    assert problem.evaluate(zeros)["train_loss"] == pytest.approx(1, rel=1e-4)
    params = problem.init(jax.random.key(0))
    batch = jax.tree.map(lambda leaf: leaf[:3], problem.data)
    one = problem.loss(params, jax.tree.map(lambda leaf: leaf[1], batch), jax.random.key(0))
    np.testing.assert_allclose(problem.losses(params, batch, jax.random.key(0))[1], one, rtol=1e-5)


def test_text_is_held_out_and_the_future_is_hidden():
    problem, tokens = registry.load("text"), len(text.ALPHABET) + 1
    windows = {part: np.asarray(getattr(problem, part)["text"]) for part in ("data", "test")}
    assert windows["data"].shape == (8_000, 33)
    assert windows["test"].shape == (1_000, 33)
    known = {row.tobytes() for row in windows["data"]}  # the text repeats itself a little
    assert np.mean([row.tobytes() in known for row in windows["test"]]) < 0.1
    params = jax.jit(problem.init)(jax.random.key(0))
    assert problem.evaluate(params)["test_loss"] == pytest.approx(np.log(tokens), abs=1)
    model = Transformer(tokens=tokens)
    x = jnp.asarray(windows["data"][:1, :-1])
    changed = x.at[0, 20:].set(0)
    logits, other = map(partial(jax.jit(model.apply), params), (x, changed))
    np.testing.assert_allclose(logits[0, :20], other[0, :20], rtol=1e-4, atol=1e-5)
    assert not np.allclose(logits[0, 20:], other[0, 20:])


def test_quadratic_measures_the_excess_loss():
    problem = registry.load("quadratic")
    params = problem.init(jax.random.key(0))
    values = problem.evaluate(params)
    mean = problem.losses(params, problem.data, jax.random.key(0)).mean()
    assert values["train_loss"] == pytest.approx(float(mean), rel=1e-3)
    assert values["train_loss"] == values["test_loss"]
    assert problem.evaluate(jnp.zeros_like(params))["train_loss"] == 0
