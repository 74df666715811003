"""What a test problem is: a small record of pure functions and data."""

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


@dataclass(frozen=True)
class Source:
    """Where a problem gets its data from.

    Attributes:
      data_dir: folder of prepared datasets, or None for the default places.
      report: called with a line of text while something slow is going on.
    """

    data_dir: Path | None = None
    report: Report = lambda text: None


@dataclass(frozen=True)
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
        from .evaluation import evaluator

        return evaluator(self)
