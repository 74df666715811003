"""Best responses to a hyperparameter: a network gives a classifier's weights for any weight decay.

    s ~ uniform on (−1, 1),    log λ = center + s · half width,    (W, b) = network(s)

    ℓ(φ, x, y) = cross-entropy(W x + b, y) + λ ‖W‖² / 2

φ, the weights of the network, is all that is learned. For each λ there is one best classifier, of
which a Hessian has eigenvalues down to λ, and one φ is to serve all of them. Once learned, λ is
chosen by a look at validation images, without further training.

J. Lorraine and D. Duvenaud, *Stochastic Hyperparameter Optimization through Hypernetworks* (2018),
arXiv:1802.09419, algorithm 2; M. MacKay, P. Vicol, J. Lorraine, D. Duvenaud and R. Grosse,
*Self-Tuning Networks: Bilevel Optimization of Hyperparameters using Structured Best-Response
Functions* (2019), arXiv:1903.03088.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .. import data
from ..models import SmoothMLP
from ..problem import Problem, PyTree, Source, batched
from .classification import images_on_device
from .common import in_precision_of

TRAIN = 300  # images, so few that weight decay helps; the rest of the training set validates
_LABEL_NOISE = 0.2  # share of these images with a random label
LAMBDAS = (1e-4, 0.1)  # the least and the largest λ
_GRID = 16  # values of λ, to judge by
_START = 1 / 8  # of the classifier's weights, which a network of the usual start makes too large


def grid(count: int = _GRID) -> np.ndarray:
    """Values of s, in the middle of equal parts of (−1, 1)."""
    return (np.arange(count) + 0.5) * 2 / count - 1


def weight_decay(s: Any) -> Any:
    """The λ of an s."""
    low, high = np.log(LAMBDAS)
    return jnp.exp((low + high) / 2 + s * (high - low) / 2)


class Classifier(NamedTuple):
    """Logistic regression.

    Attributes:
      weight: W, shape (classes, pixels).
      bias: b, shape (classes,).
    """

    weight: jax.Array
    bias: jax.Array

    def logits(self, x: jax.Array) -> jax.Array:
        """Logits (..., classes) of images (..., pixels)."""
        return x @ self.weight.T + self.bias


def digits(name: str, source: Source) -> Problem:
    del source  # the data are built in
    whole = data.digits()
    image, label = whole.train
    train = data.Images(image[:TRAIN], data.with_label_noise(label[:TRAIN], _LABEL_NOISE))
    validation = data.Images(image[TRAIN:], label[TRAIN:])
    dataset = whole._replace(train=train)
    return best_responses(name, dataset, validation, width=16, batch_size=32, epochs=60)


def best_responses(
    name: str,
    dataset: data.Dataset,
    validation: data.Images,
    *,
    width: int,
    batch_size: int,
    epochs: int,
) -> Problem:
    """Make the problem of learning the best classifier of every weight decay at once.

    Measured are the loss, averaged over λ on a grid rather than drawn; and of the classifier with
    the λ of the grid that is best on the validation images, the cross-entropy without a penalty,
    `chosen_cross_entropy`, and `chosen_accuracy`.

    Args:
      name: of the problem.
      dataset: images to learn from, and to judge by.
      validation: images to choose λ by.
      width: of the hidden layer of the network.
      batch_size: default batch size.
      epochs: default number of epochs.
    """
    pixels, classes = dataset.train.image[0].size, int(dataset.train.label.max()) + 1
    scale = float(dataset.scale[0])
    module: Any = SmoothMLP((width,), classes * (pixels + 1))
    to_validate = images_on_device(validation)

    def respond(params: PyTree, s: jax.Array) -> Classifier:
        """The classifier for the λ of an s."""
        both = _START * module.apply(params, s[None]).reshape(classes, pixels + 1)
        return Classifier(both[:, 1:], both[:, 0])

    def cross_entropy(classifier: Classifier, examples: PyTree) -> tuple[jax.Array, jax.Array]:
        """Of one example or many, and whether they are told right."""
        label = examples["label"]
        image = in_precision_of(classifier.weight, examples["image"])
        logits = classifier.logits(image.reshape(*label.shape, pixels) / scale)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        return losses, jnp.argmax(logits, axis=-1) == label

    def penalized(params: PyTree, example: PyTree, s: jax.Array) -> jax.Array:
        classifier = respond(params, s)
        penalty = weight_decay(s) * jnp.sum(jnp.square(classifier.weight)) / 2
        return cross_entropy(classifier, example)[0] + penalty

    def loss(params: PyTree, example: PyTree, key: jax.Array) -> jax.Array:
        dtype = jax.tree.leaves(params)[0].dtype
        return penalized(params, example, jax.random.uniform(key, (), dtype, -1, 1))

    def over_grid(params: PyTree, s: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Cross-entropy and accuracy on the validation images, for each s."""
        one = lambda s: cross_entropy(respond(params, s), to_validate)  # noqa: E731
        losses, right = jax.vmap(one)(s)
        return losses.mean(axis=1), right.mean(axis=1)

    def measure(params: PyTree, batch: PyTree) -> dict[str, jax.Array]:
        s = in_precision_of(params, jnp.asarray(grid()))
        each = jax.vmap(jax.vmap(partial(penalized, params), (0, None)), (None, 0))(batch, s)
        best = jnp.argmin(over_grid(params, s)[0])
        losses, right = cross_entropy(respond(params, s[best]), batch)
        return {
            "loss": each.mean(axis=0),
            "chosen_cross_entropy": losses,
            "chosen_accuracy": right,
        }

    def plot(params: PyTree, path: Path) -> None:
        s, at = grid(60), grid()
        best = best_classifiers(dataset.train, scale, weight_decay(at))

        @jax.jit
        def losses(params: PyTree, best: Classifier) -> tuple[jax.Array, jax.Array]:
            exact = jax.vmap(lambda one: cross_entropy(one, to_validate)[0].mean())(best)
            return over_grid(params, jnp.asarray(s, jnp.float32))[0], exact

        found, exact = jax.device_get(losses(params, best))
        _draw(name, (weight_decay(s), found), (weight_decay(at), exact), path)

    return Problem(
        name=name,
        init=lambda key: module.init(key, jnp.zeros(1)),
        loss=loss,
        losses=batched(loss),
        measure=measure,
        data=images_on_device(dataset.train),
        test=images_on_device(dataset.test),
        batch_size=batch_size,
        epochs=epochs,
        plot=plot,
    )


def best_classifiers(images: data.Images, scale: float, lambdas: Any) -> Classifier:
    """Those that minimize the penalized loss, one for each λ along the leading axis, by L-BFGS."""
    from sklearn.linear_model import LogisticRegression

    x, weight, bias = images.image.reshape(len(images.label), -1) / scale, [], []
    for strength in np.asarray(lambdas, float):
        # scikit-learn weighs the sum of the losses by C, and the penalty by 1.
        fit = LogisticRegression(C=1 / (strength * len(x)), tol=1e-8, max_iter=20_000)
        fit.fit(x, images.label)
        weight.append(fit.coef_)
        bias.append(fit.intercept_)
    return Classifier(jnp.asarray(np.stack(weight)), jnp.asarray(np.stack(bias)))


def _draw(name: str, found: tuple[Any, Any], exact: tuple[Any, Any], file: Path) -> None:
    """Validation loss over λ: of the network's classifiers, and of the best ones."""
    from ..plots import figure, save, tidy

    fig = figure(5.4, 3.8)
    axes = fig.add_subplot()
    axes.plot(*found, label="by the network")
    axes.plot(*exact, "o", ms=4, color="black", label="trained for this λ alone")
    axes.set_xscale("log")
    axes.set_xlabel("weight decay λ")
    axes.set_ylabel("cross-entropy of validation images")
    axes.set_title(name)
    axes.legend(frameon=False)
    tidy(axes)
    save(fig, file)
