import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mekax.experiments import datasets, problems
from mekax.experiments.errors import UsageError
from mekax.experiments.models import CNN, MLP, LogisticRegression

DIGITS = [name for name, entry in problems.PROBLEMS.items() if entry.dataset is None]


@pytest.mark.parametrize("name", DIGITS)
def test_built_in_problem(name):
    problem = problems.load(name)
    params = problem.init(jax.random.key(0))
    batch = jax.tree.map(lambda leaf: leaf[:5], problem.data)
    together = problem.losses(params, batch, jax.random.key(1))
    one_by_one = [
        problem.loss(params, jax.tree.map(lambda leaf, i=i: leaf[i], batch), jax.random.key(1))
        for i in range(5)
    ]
    np.testing.assert_allclose(together, jnp.stack(one_by_one), rtol=1e-5)
    assert len(jax.tree.leaves(problem.data)[0]) == problems.find(name).training_examples(None)


def test_evaluation_averages_over_all_examples():
    problem = problems.load("digits-logistic")
    params = problem.init(jax.random.key(3))
    values = problem.evaluate(params)
    losses = problem.losses(params, problem.data, jax.random.key(0))
    np.testing.assert_allclose(values["train_loss"], losses.mean(), rtol=1e-5)
    test = datasets.digits().test
    batch = {"image": jnp.asarray(test.image), "label": jnp.asarray(test.label)}
    np.testing.assert_allclose(
        values["test_loss"], problem.losses(params, batch, jax.random.key(0)).mean(), rtol=1e-5
    )
    assert 0 <= values["test_accuracy"] <= 1


def test_unknown_problem():
    with pytest.raises(UsageError, match="Did you mean 'cifar10'"):
        problems.find("cifar-10")


def test_every_problem_has_one_line():
    for entry in problems.PROBLEMS.values():
        assert entry.description
        assert "\n" not in entry.description
        assert (entry.examples is None) == (entry.dataset is not None)


@pytest.mark.parametrize("model", [MLP((8,), 3), LogisticRegression(3), CNN((8, 16), 3)])
def test_models_keep_examples_apart(model):
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 2))
    params = model.init(jax.random.key(1), x[:1])
    logits = model.apply(params, x)
    assert logits.shape == (4, 3)
    np.testing.assert_allclose(model.apply(params, x[2:3])[0], logits[2], rtol=2e-5, atol=1e-5)
