"""Classification by a network that has the solution of a differential equation inside.

    y(0) = image,    dy/dt = f(t, y),    logits = W y(1) + b
    loss = cross-entropy + weight · ∫₀¹ ‖dᴷy/dtᴷ‖² / d dt

where f is a network, d the number of pixels and K the order of the penalty, if there is one.
"""

from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from .. import ode
from ..datasets import Dataset, Images
from ..models import VectorField
from .batched import batched
from .problem import Problem, PyTree

STEPS = 8  # of training
TOLERANCE = 1e-5  # of the adaptive solver whose evaluations are counted
MAX_STEPS = 500  # of the same
_DRAWN = 200  # test images in the picture

fixed_steps = partial(ode.integrate, steps=STEPS)


def ode_classifier(
    name: str,
    dataset: Dataset,
    *,
    width: int,
    batch_size: int,
    epochs: int,
    order: int = 0,
    weight: float = 0.0,
    integrate: ode.Integrate = fixed_steps,
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
      weight: of the penalty.
      integrate: solver to train with.
    """
    offset, scale = jnp.asarray(dataset.offset), jnp.asarray(dataset.scale)
    field, head = VectorField((width,)), nn.Dense(int(dataset.train.label.max()) + 1)
    pixels = dataset.train.image[0].size

    def init(key: jax.Array) -> PyTree:
        of_field, of_head = jax.random.split(key)
        y = jnp.zeros(pixels)
        return {"field": field.init(of_field, jnp.zeros(()), y), "head": head.init(of_head, y)}

    def start(params: PyTree, image: jax.Array) -> jax.Array:
        # Computed with in the parameters' precision, whatever the images are stored in.
        dtype = jax.tree.leaves(params)[0].dtype
        return ((image - offset) / scale).reshape(-1).astype(dtype)

    def slope(params: PyTree) -> ode.Field:
        return partial(field.apply, params["field"])

    def results(params: PyTree, example: PyTree) -> dict[str, Any]:
        """Logits and penalty of one image."""
        y = start(params, example["image"])
        if not order:
            y, penalty = integrate(slope(params), y, 0.0, 1.0), 0.0
        else:
            both = _with_penalty(slope(params), order)
            y, penalty = integrate(both, (y, jnp.zeros((), y.dtype)), 0.0, 1.0)
        logits = head.apply(params["head"], y)
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, example["label"])  # pyright: ignore[reportArgumentType]
        return {
            "cross_entropy": entropy,
            "loss": entropy + weight * penalty,
            "accuracy": jnp.argmax(logits) == example["label"],  # pyright: ignore[reportArgumentType]
        }

    def loss(params: PyTree, example: PyTree, key: jax.Array | None = None) -> jax.Array:
        del key
        return results(params, example)["loss"]

    def function_evaluations(params: PyTree, image: jax.Array) -> jax.Array:
        y = start(params, image)
        found = ode.solve(
            slope(params), y, 0.0, 1.0, rtol=TOLERANCE, atol=TOLERANCE, max_steps=MAX_STEPS
        )
        return jnp.where(found.succeeded, found.evaluations.astype(jnp.float32), jnp.inf)

    def measure(params: PyTree, batch: PyTree) -> dict[str, jax.Array]:
        found = jax.vmap(partial(results, params))(batch)
        if not order:
            del found["cross_entropy"]  # it is the loss
        evaluations = jax.vmap(partial(function_evaluations, params))(batch["image"])
        return {**found, "function_evaluations": evaluations}

    def plot(params: PyTree, path: Path) -> None:
        times = jnp.linspace(0, 1, STEPS + 1)
        starts = jax.vmap(partial(start, params))(jnp.asarray(dataset.test.image[:_DRAWN]))
        paths = jax.jit(jax.vmap(lambda y: ode.trajectory(slope(params), y, times)))(starts)
        _draw(name, np.asarray(paths), dataset.test.label[:_DRAWN], path)

    return Problem(
        name=name,
        init=init,
        loss=loss,
        losses=batched(loss),
        measure=measure,
        data=_on_device(dataset.train),
        test=_on_device(dataset.test),
        batch_size=batch_size,
        epochs=epochs,
        plot=plot,
    )


def _with_penalty(slope: ode.Field, order: int) -> ode.Field:
    """The field of the state and of the penalty that it has gathered."""

    def both(t: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        derivatives = ode.time_derivatives(slope, t, state[0], order)
        return derivatives[0], jnp.mean(jnp.square(derivatives[-1]))

    return both


def _draw(name: str, paths: np.ndarray, labels: np.ndarray, file: Path) -> None:
    """Solutions in the plane in which their ends vary most, colored by class."""
    from matplotlib import colormaps

    from ..plots import figure, save

    ends = paths[:, -1]
    center = ends.mean(axis=0)
    plane = np.linalg.svd(ends - center, full_matrices=False)[2][:2]
    flat = (paths - center) @ plane.T
    made = figure(6.4, 5.0)
    axes = made.add_subplot()
    colors = colormaps["tab10"](labels)
    for line, color in zip(flat, colors, strict=True):
        axes.plot(*line.T, color=color, lw=0.5, alpha=0.6)
    for label in np.unique(labels):
        mine = labels == label
        axes.scatter(*flat[mine, -1].T, s=14, color=colors[mine][0], label=str(label), zorder=3)
    axes.set_title(f"{name}: from test images (lines begin) to what is classified (dots)")
    axes.set_xlabel("first principal component of y(1)")
    axes.set_ylabel("second principal component")
    axes.spines[["top", "right"]].set_visible(False)
    made.legend(loc="outside right center", frameon=False)
    save(made, file)


def _on_device(images: Images) -> dict[str, jax.Array]:
    return {"image": jnp.asarray(images.image), "label": jnp.asarray(images.label, jnp.int32)}
