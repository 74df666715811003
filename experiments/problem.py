"""What a test problem is: a small record of pure functions and data, and how it is evaluated.

Importing this module imports no jax, so that the command line can check its input first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jax

PyTree = Any
Report = Callable[[str], None]
TRAIN_EXAMPLES = 10_000  # that the reported training loss is averaged over, at most
_CHUNK = 500  # examples measured at a time


@dataclass(frozen=True)
class Source:
    """Where a problem gets its data from.

    Attributes:
      data_dir: folder of prepared datasets, or None for the default places.
      report: called with a line of text while something slow is going on.
    """

    data_dir: Path | None = None
    report: Report = lambda text: None


@dataclass(frozen=True, eq=False)  # equal is identical: its arrays say nothing about equality
class Problem:
    """A stochastic objective, its data and its measures of success.

    Every function is pure. Randomness inside a loss comes from the key alone, so that all passes
    over one mini-batch (values, gradient, Hessian-vector product) see one objective.

    Attributes:
      name: as in the registry.
      init: `key -> params`.
      loss: `(params, example, key) -> scalar`, the loss of one example.
      losses: `(params, batch, key) -> (n,)`, the losses of a batch, often faster than `loss`
        under `vmap`; deterministic problems ignore the key, others give the i-th example the
        i-th of the n keys split off it, as `batched` does.
      measure: `(params, batch) -> dict of (n,)`, what is averaged over examples to judge the
        parameters: `loss`, and whatever else there is, such as `accuracy` or
        `function_evaluations`. Without a key: where the loss is estimated, this one is exact.
      data: training examples, a pytree of arrays with the examples along the leading axis.
      test: examples held out, like `data`.
      batch_size: default number of examples per step.
      epochs: default number of passes over the data.
      evaluations: how often to evaluate during a run, at least.
      plot: `(params, path)`, draws what was learned into a PNG file; or None.
    """

    name: str
    init: Callable[[jax.Array], PyTree]
    loss: Callable[[PyTree, PyTree, jax.Array], jax.Array]
    losses: Callable[[PyTree, PyTree, jax.Array], jax.Array]
    measure: Callable[[PyTree, PyTree], dict[str, jax.Array]]
    data: PyTree
    test: PyTree
    batch_size: int
    epochs: int
    evaluations: int = 20
    plot: Callable[[PyTree, Path], None] | None = None

    @property
    def examples(self) -> int:
        """Number of training examples."""
        import jax

        return jax.tree.leaves(self.data)[0].shape[0]

    @cached_property
    def evaluate(self) -> Callable[[PyTree], dict[str, float]]:
        """`params -> dict of floats`: `train_loss`, `test_loss`, and whatever else is measured."""
        train = first(self.data, TRAIN_EXAMPLES)

        def evaluate(params: PyTree) -> dict[str, float]:
            values = self.measures(params, train, self.test)
            return {name: float(value) for name, value in values.items()}

        return evaluate

    @cached_property
    def measures(self) -> Callable[[PyTree, PyTree, PyTree], dict[str, jax.Array]]:
        """Compiled `measures` of this problem: `(params, train, test) -> averages`."""
        import jax

        return jax.jit(lambda params, train, test: measures(self, params, train, test))

    @cached_property
    def programs(self) -> dict[Any, Any]:
        """Programs compiled for this problem, which live as long as it does."""
        return {}


def batched(loss: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Make a problem's `losses` of its `loss`.

    Args:
      loss: `(params, example, key) -> scalar`.

    Returns:
      `(params, batch, key) -> (n,)`, in which every example has a key of its own.
    """
    import jax

    def losses(params: PyTree, batch: PyTree, key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, jax.tree.leaves(batch)[0].shape[0])
        return jax.vmap(loss, (None, 0, 0))(params, batch, keys)

    return losses


def example_key(values: jax.Array) -> jax.Array:
    """A random key that is a function of an example's values: for measuring, where none is given.

    Were there one key for all, what is measured would depend on what that key happens to give,
    however many examples there are.
    """
    import jax
    import jax.numpy as jnp

    number = jnp.sum(values) * 2**16
    return jax.random.fold_in(jax.random.key(0), number.astype(jnp.int32))


def first(examples: PyTree, count: int | None) -> PyTree:
    """At most so many of the examples, all for None; data are shuffled, so they are a sample."""
    import jax

    return jax.tree.map(lambda leaf: leaf[:count], examples)


def measures(problem: Problem, params: PyTree, train: PyTree, test: PyTree) -> dict[str, jax.Array]:
    """The loss averaged over `train`, everything the problem measures averaged over `test`.

    Traceable, and safe under `vmap` over parameters.
    """
    on_test = _averages(problem, params, test)
    return {
        "train_loss": _averages(problem, params, train)["loss"],
        **{f"test_{name}": value for name, value in on_test.items()},
    }


def _averages(problem: Problem, params: PyTree, examples: PyTree) -> dict[str, jax.Array]:
    import jax
    import jax.numpy as jnp

    def one(example: PyTree) -> dict[str, jax.Array]:
        values = problem.measure(params, jax.tree.map(lambda leaf: leaf[None], example))
        return {name: value[0] for name, value in values.items()}

    values = jax.lax.map(one, examples, batch_size=_CHUNK)
    return {name: jnp.mean(value, dtype=jnp.float32) for name, value in values.items()}
