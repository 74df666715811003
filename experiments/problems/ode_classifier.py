"""Classification by a network that has the solution of a differential equation inside.

    y(0) = image,    dy/dt = f(t, y),    logits = W y(1) + b
    loss = cross-entropy + weight · ∫₀¹ ‖dᴷy/dtᴷ‖² / d dt

where f is a network, d the number of pixels and K the order of the penalty, if there is one, which
makes the equation easy to solve.

R. T. Q. Chen, Y. Rubanova, J. Bettencourt and D. Duvenaud, *Neural Ordinary Differential
Equations* (2018), arXiv:1806.07366, section 3; J. Kelly, J. Bettencourt, M. J. Johnson and
D. Duvenaud, *Learning Differential Equations that are Easy to Solve* (2020), arXiv:2007.04504,
equation 1 and section 3.
"""

from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from .. import data, solvers
from ..models import VectorField
from ..problem import Problem, PyTree, Source, batched
from .classification import images_on_device
from .common import STEPS, fixed_steps, in_precision_of, to_tolerance

WEIGHT = 0.01  # of a penalty
_DRAWN = 200  # test images in the picture


def digits(
    name: str,
    source: Source,
    order: int = 0,
    weight: float | jax.Array = WEIGHT,
    integrate: solvers.Integrate = fixed_steps,
) -> Problem:
    """On scikit-learn's digits; see `ode_classifier` for the options."""
    del source  # the data are built in
    options: dict[str, Any] = {"order": order, "weight": weight, "integrate": integrate}
    return ode_classifier(name, data.digits(), width=64, batch_size=64, epochs=30, **options)


def mnist(name: str, source: Source, order: int = 0) -> Problem:
    dataset = data.prepared("mnist", source.data_dir, source.report)
    return ode_classifier(name, dataset, width=100, batch_size=128, epochs=5, order=order)


regularized_digits = partial(digits, order=2)
regularized_mnist = partial(mnist, order=2)
third_order_digits = partial(digits, order=3)


def ode_classifier(
    name: str,
    dataset: data.Dataset,
    *,
    width: int,
    batch_size: int,
    epochs: int,
    order: int = 0,
    weight: float | jax.Array = WEIGHT,
    integrate: solvers.Integrate = fixed_steps,
) -> Problem:
    """Make the problem of classifying images by way of a differential equation.

    Measured are the loss, the accuracy, and how often an adaptive solver evaluates f to solve the
    equation to a tolerance of 1e-5: how hard the learned equation is. It is infinite where 500
    steps do not suffice. With a penalty the cross-entropy is measured besides.

    Args:
      name: of the problem.
      dataset: images and labels, and how to standardize pixels.
      width: of the hidden layer of f.
      batch_size: default batch size.
      epochs: default number of epochs.
      order: of the time derivative that is penalized, or 0 for no penalty.
      weight: of the penalty, which may be traced.
      integrate: solver to train with.

    Raises:
      ValueError: for a solver that cannot be differentiated twice.
    """
    solvers.require_second_order(integrate)
    offset, scale = jnp.asarray(dataset.offset), jnp.asarray(dataset.scale)
    field, head = VectorField((width,)), nn.Dense(int(dataset.train.label.max()) + 1)
    pixels = dataset.train.image[0].size

    def init(key: jax.Array) -> PyTree:
        field_key, head_key = jax.random.split(key)
        y = jnp.zeros(pixels)
        return {"field": field.init(field_key, jnp.zeros(()), y), "head": head.init(head_key, y)}

    def start(params: PyTree, image: jax.Array) -> jax.Array:
        return in_precision_of(params, ((image - offset) / scale).reshape(-1))

    def slope(params: PyTree) -> solvers.Field:
        return partial(field.apply, params["field"])

    def results(params: PyTree, example: PyTree) -> dict[str, Any]:
        """What one image is measured by, but for the evaluations."""
        y = start(params, example["image"])
        if not order:
            y, penalty = integrate(slope(params), y, 0.0, 1.0), 0.0
        else:
            both = _with_penalty(slope(params), order)
            y, penalty = integrate(both, (y, jnp.zeros((), y.dtype)), 0.0, 1.0)
        logits: Any = head.apply(params["head"], y)
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, example["label"])
        correct = jnp.argmax(logits) == example["label"]
        if not order:
            return {"loss": entropy, "accuracy": correct}
        return {"cross_entropy": entropy, "loss": entropy + weight * penalty, "accuracy": correct}

    def loss(params: PyTree, example: PyTree, key: jax.Array | None = None) -> jax.Array:
        del key
        return results(params, example)["loss"]

    def function_evaluations(params: PyTree, image: jax.Array) -> jax.Array:
        solution = to_tolerance(slope(params), start(params, image), 0.0, 1.0)
        return jnp.where(solution.succeeded, solution.evaluations, jnp.inf)

    def measure(params: PyTree, batch: PyTree) -> dict[str, jax.Array]:
        evaluations = jax.vmap(partial(function_evaluations, params))(batch["image"])
        return {
            **jax.vmap(partial(results, params))(batch),
            "function_evaluations": evaluations,
        }

    def plot(params: PyTree, path: Path) -> None:
        times = jnp.linspace(0, 1, STEPS + 1)
        starts = jax.vmap(partial(start, params))(jnp.asarray(dataset.test.image[:_DRAWN]))
        solve = jax.vmap(lambda y: solvers.trajectory(slope(params), y, times))
        _draw(name, np.asarray(jax.jit(solve)(starts)), dataset.test.label[:_DRAWN], path)

    return Problem(
        name=name,
        init=init,
        loss=loss,
        losses=batched(loss),
        measure=measure,
        data=images_on_device(dataset.train),
        test=images_on_device(dataset.test),
        batch_size=batch_size,
        epochs=epochs,
        plot=plot,
    )


def _with_penalty(slope: solvers.Field, order: int) -> solvers.Field:
    """The field of the state and of the penalty that it has gathered."""

    def both(t: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        derivatives = solvers.time_derivatives(slope, t, state[0], order)
        return derivatives[0], jnp.mean(jnp.square(derivatives[-1]))

    return both


def _draw(name: str, paths: np.ndarray, labels: np.ndarray, file: Path) -> None:
    """Solutions in the plane in which their ends vary most, colored by class."""
    from ..plots import figure, save

    ends = paths[:, -1]
    center = ends.mean(axis=0)
    plane = np.linalg.svd(ends - center, full_matrices=False)[2][:2]
    flat = (paths - center) @ plane.T
    fig = figure(6.4, 5.0)
    axes = fig.add_subplot()
    for label in np.unique(labels):
        x, y = flat[labels == label].T  # of shape (times, images)
        axes.plot(x, y, color=f"C{label}", lw=0.5, alpha=0.6)
        axes.scatter(x[-1], y[-1], s=14, color=f"C{label}", label=str(label), zorder=3)
    axes.set_title(f"{name}: test images (where lines begin) move to where they are classified")
    axes.set_xlabel("first principal component of y(1)")
    axes.set_ylabel("second principal component")
    axes.spines[["top", "right"]].set_visible(False)
    fig.legend(loc="outside right center", frameon=False)
    save(fig, file)
