"""What an easy equation costs: loss against evaluations, over the weight of the penalty.

    python -m mekax.experiments.ode_tradeoff [--quick] [--out DIR]

trains regularized neural ODEs on the digits with `adameka`, for second and third derivatives and
several weights of their penalty, and draws the cross-entropy on test images against how often an
adaptive solver then evaluates the equation. Weight 0 is the neural ODE that nothing was asked of.

J. Kelly, J. Bettencourt, M. J. Johnson and D. Duvenaud, *Learning Differential Equations that are
Easy to Solve* (2020), arXiv:2007.04504, figure 1.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .errors import UsageError
from .settings import output_folder

if TYPE_CHECKING:
    import jax

ORDERS = (2, 3)
NAME = "ode_tradeoff"  # of the files


@dataclass(frozen=True)
class Size:
    """How thorough the curves are.

    Attributes:
      weights: of the penalty, in rising order.
      seeds: repetitions.
      steps: of every training.
    """

    weights: tuple[float, ...]
    seeds: int
    steps: int


FULL = Size((0.0, 1e-3, 1e-2, 0.1, 1.0), seeds=3, steps=600)
QUICK = Size((0.0, 1e-2, 1.0), seeds=1, steps=100)


@dataclass(frozen=True)
class Point:
    """One training.

    Attributes:
      order: of the derivative that was penalized.
      weight: of the penalty.
      seed: of the parameters and of the order of the data.
      cross_entropy: on test images.
      accuracy: on test images.
      function_evaluations: of the adaptive solver, averaged over test images.
    """

    order: int
    weight: float
    seed: int
    cross_entropy: float
    accuracy: float
    function_evaluations: float


def points(order: int, size: Size) -> list[Point]:
    """Train with every weight and seed, all at once, and measure.

    Args:
      order: of the derivative that is penalized.
      size: weights, seeds and steps.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from .data_order import batches
    from .problems import Source, regularized_ode

    plain = regularized_ode.digits(NAME, Source(), order)
    rows = np.stack(
        [
            batches(seed, 0, size.steps, plain.examples, plain.batch_size)
            for seed in range(size.seeds)
        ]
    )

    def one(weight: jax.Array, seed: jax.Array, rows: jax.Array) -> dict[str, jax.Array]:
        # A penalty of weight 0 changes nothing, so that weights differ in a number alone.
        problem = regularized_ode.digits(NAME, Source(), order, weight)
        params = _trained(problem, seed, rows)
        measured = problem.measure(params, problem.test)
        return {name: jnp.mean(value, dtype=jnp.float32) for name, value in measured.items()}

    over_seeds = jax.vmap(one, (None, 0, 0))
    over_weights = jax.jit(jax.vmap(over_seeds, (0, None, None)))
    found = jax.device_get(over_weights(jnp.array(size.weights), jnp.arange(size.seeds), rows))
    return [
        Point(
            order,
            weight,
            seed,
            *(
                float(found[name][i, seed])
                for name in ("cross_entropy", "accuracy", "function_evaluations")
            ),
        )
        for i, weight in enumerate(size.weights)
        for seed in range(size.seeds)
    ]


def _trained(problem: Any, seed: jax.Array, rows: jax.Array) -> Any:
    """Parameters after a step of `adameka` on each row of examples."""
    import jax
    import jax.numpy as jnp
    import optax

    from ..optimizers import adameka

    tx, key = adameka(), jax.random.key(seed)

    def step(carry: Any, row: jax.Array) -> tuple[Any, None]:
        params, state = carry
        batch = jax.tree.map(lambda leaf: leaf[row], problem.data)

        def value_fn(params: Any) -> jax.Array:
            return problem.losses(params, batch, key)  # which makes no use of the key

        value, grads = jax.value_and_grad(lambda p: jnp.mean(value_fn(p)))(params)
        updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=value_fn)
        return (optax.apply_updates(params, updates), state), None

    params = problem.init(key)
    return jax.lax.scan(step, (params, tx.init(params)), rows)[0][0]


def draw(found: list[Point], file: Path) -> None:
    """A curve for each order, from weight to weight: medians over the seeds, and all trainings."""
    import numpy as np

    from .plots import figure, save

    made = figure(6.4, 4.8)
    axes = made.add_subplot()
    for order in sorted({point.order for point in found}):
        mine = [point for point in found if point.order == order]
        weights = sorted({point.weight for point in mine})
        middle = np.array(
            [
                np.median(
                    [(p.function_evaluations, p.cross_entropy) for p in mine if p.weight == weight],
                    axis=0,
                )
                for weight in weights
            ]
        )
        (line,) = axes.plot(*middle.T, marker="o", label=f"derivative {order} penalized")
        axes.scatter(
            [point.function_evaluations for point in mine],
            [point.cross_entropy for point in mine],
            s=8,
            color=line.get_color(),
            alpha=0.5,
        )
        for weight, place in zip(weights, middle, strict=True):
            axes.annotate(f"{weight:g}", place, xytext=(4, 4), textcoords="offset points")
    axes.set_yscale("log")
    axes.set_xlabel("evaluations by an adaptive solver, per test image")
    axes.set_ylabel("cross-entropy on test images")
    axes.set_title("Regularized neural ODEs, with the weight of the penalty")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    save(made, file)


@click.command()
@click.option("--quick", is_flag=True, help="Fewer weights, steps and seeds.")
@click.option("--out", metavar="DIR", help=f"Results and figure [default: results/{NAME}].")
def main(quick: bool, out: str | None) -> None:
    """Draw the loss of regularized neural ODEs against the evaluations that solving them takes."""
    try:
        folder = output_folder(out or f"results/{NAME}", f"{NAME}.json")
    except UsageError as error:
        raise click.ClickException(str(error)) from error
    from . import files

    size = QUICK if quick else FULL
    found: list[Point] = []
    click.echo(
        "| order | weight | seed | cross-entropy | error | evaluations |\n|---|---|---|---|---|---|"
    )
    for order in ORDERS:
        for point in points(order, size):
            found.append(point)
            click.echo(
                f"| {point.order} | {point.weight:g} | {point.seed} | {point.cross_entropy:.3f} "
                f"| {100 * (1 - point.accuracy):.1f} % | {point.function_evaluations:.1f} |"
            )
    content = {
        "command": sys.argv,
        "versions": files.versions(),
        "device": files.device(),
        "size": asdict(size),
        "points": [asdict(point) for point in found],
    }
    files.write_json(folder / f"{NAME}.json", content)
    draw(found, folder / f"{NAME}.png")
    click.echo(f"Results and figure: {folder}")


if __name__ == "__main__":
    main()
