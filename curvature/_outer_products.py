"""Per-example gradients of weight matrices, kept as the factors of their outer products.

What one example says about the weights of a dense layer is x ⊗ y, its input times what comes back.
`vmap` writes all n of these matrices to memory, n·D numbers, although all that is asked of them are
products of the matrices X and Y of their factors:

    Σ_i x_i ⊗ y_i = XᵀY,    Σ_i (x_i ⊗ y_i)² = (X²)ᵀ(Y²)

So a computation is traced under `vmap`, and results that are sums of outer products are left as
factors. All others, such as convolutions and layers used at several places, come out as arrays.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from ._tree import PyTree


class OuterProducts(NamedTuple):
    """A matrix for each example i: Σ_t left[t, i] ⊗ right[t, i].

    Attributes:
      left: shape (terms, n, rows).
      right: shape (terms, n, columns).
    """

    left: jax.Array
    right: jax.Array

    @property
    def examples(self) -> int:
        """Their number n."""
        return self.left.shape[1]

    def sum(self) -> jax.Array:
        """Sum over the examples, shape (rows, columns)."""
        return _contract(self.left, self.right)

    def centered(self) -> "OuterProducts":
        """The same matrices less all but a part of their mean, in three terms for every one.

        With x = x̄ + x′ and y = ȳ + y′:  x ⊗ y − x̄ ⊗ ȳ = x̄ ⊗ y′ + x′ ⊗ ȳ + x′ ⊗ y′. Squares of
        these lose nothing to cancellation where examples resemble each other.
        """
        left_mean, right_mean = (jnp.mean(x, axis=1, keepdims=True) for x in self)
        left, right = self.left - left_mean, self.right - right_mean
        return OuterProducts(
            jnp.concatenate([jnp.broadcast_to(left_mean, left.shape), left, left]),
            jnp.concatenate([right, jnp.broadcast_to(right_mean, right.shape), right]),
        )

    def sum_of_squares(self) -> jax.Array:
        """Sum over the examples of the squares of the entries, shape (rows, columns)."""
        first, second = jnp.triu_indices(self.left.shape[0])
        twice = jnp.where(first == second, 1, 2).astype(self.left.dtype)[:, None, None]
        return _contract(
            self.left[first] * self.left[second] * twice, self.right[first] * self.right[second]
        )


def _contract(left: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.einsum("tnp,tnq->pq", left, right, precision=jax.lax.Precision.HIGHEST)


def is_outer_products(x: Any) -> bool:
    """Whether it is `OuterProducts`, for `is_leaf` of tree functions."""
    return isinstance(x, OuterProducts)


def map_examples(function: Callable[[PyTree], PyTree], examples: PyTree) -> PyTree:
    """`jax.vmap(function)(examples)`, with `OuterProducts` in place of arrays where it can be.

    Example:
      >>> import jax.numpy as jnp
      >>> grad = jax.grad(lambda w, x: jnp.sum(jnp.tanh(x @ w)))
      >>> found = map_examples(lambda x: grad(jnp.ones((3, 2)), x), jnp.ones((5, 3)))
      >>> found.left.shape, found.right.shape
      ((1, 5, 3), (1, 5, 2))
    """
    traced, shapes = jax.make_jaxpr(jax.vmap(function), return_shape=True)(examples)
    jaxpr = traced.jaxpr
    definitions = {var: eqn for eqn in jaxpr.eqns for var in eqn.outvars}
    factored = [_factor(var, definitions) for var in jaxpr.outvars]
    wanted = [
        variable
        for var, terms in zip(jaxpr.outvars, factored, strict=True)
        for variable in ([var] if terms is None else [f.var for term in terms for f in term])
    ]
    # What only the products themselves depend on is now dead code.
    factors_only = core.ClosedJaxpr(jaxpr.replace(outvars=wanted), traced.consts)
    values = iter(core.jaxpr_as_fun(factors_only)(*jax.tree.leaves(examples)))

    def collect(terms: "list[tuple[_Factor, _Factor]] | None") -> Any:
        if terms is None:
            return next(values)
        pairs = [(left.of(next(values)), right.of(next(values))) for left, right in terms]
        return OuterProducts(*(jnp.stack(side) for side in zip(*pairs, strict=True)))

    return jax.tree.unflatten(jax.tree.structure(shapes), [collect(terms) for terms in factored])


class _Factor(NamedTuple):
    """A variable with an axis of examples, an axis of entries, and otherwise axes of length 1."""

    var: core.Var
    examples: int
    entries: int

    def of(self, value: jax.Array) -> jax.Array:
        """Bring its value into the shape (n, entries)."""
        value = jnp.moveaxis(value, (self.examples, self.entries), (0, 1))
        return value.reshape(value.shape[:2])


def _factor(
    var: Any, definitions: dict[core.Var, core.JaxprEqn]
) -> list[tuple[_Factor, _Factor]] | None:
    """Find the factors of a variable of shape (n, rows, columns); None if it has none."""
    if isinstance(var, core.Literal) or var not in definitions:
        return None
    eqn = definitions[var]
    name = eqn.primitive.name
    if name == "transpose" and eqn.params["permutation"] == (0, 2, 1):
        terms = _factor(eqn.invars[0], definitions)
        return None if terms is None else [(right, left) for left, right in terms]
    if name in ("add", "add_any"):
        left, right = (_factor(operand, definitions) for operand in eqn.invars)
        return None if left is None or right is None else left + right
    if name == "dot_general":
        contracted, batched = eqn.params["dimension_numbers"]
        left, right = map(_side, eqn.invars, contracted, batched)
        return None if left is None or right is None else [(left, right)]
    return None


def _side(var: Any, contracted: tuple[int, ...], batched: tuple[int, ...]) -> _Factor | None:
    shape = var.aval.shape
    free = [axis for axis in range(len(shape)) if axis not in (*contracted, *batched)]
    if len(batched) != 1 or len(free) != 1 or any(shape[axis] != 1 for axis in contracted):
        return None
    return _Factor(var, batched[0], free[0])
