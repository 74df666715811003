"""What the tests of problems share: parameters, derivatives by differences, a training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from mekax.experiments import data
from mekax.optimizers import eval_params


def drawn_like(init, scale, seed=0):
    """Parameters, or a direction; NumPy draws at once what JAX would compile a program for."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(init, jax.random.key(0))
    return jax.tree.map(lambda leaf: scale * rng.normal(size=leaf.shape), shapes)


def at_start(problem, examples=3):
    """Parameters away from symmetry, a direction, and a batch, in double precision."""
    batch = jax.tree.map(lambda leaf: leaf[:examples], problem.data)
    return drawn_like(problem.init, 0.3), drawn_like(problem.init, 1.0, seed=1), batch


def derivatives(function, params, direction):
    """Value, gradient and Hessian-vector product, the latter two as vectors."""

    def value_and_grad(p):
        value, grad = jax.value_and_grad(function)(p)
        return value, ravel_pytree(grad)[0]

    (value, grad), (_, product) = jax.jvp(value_and_grad, (params,), (direction,))
    return value, grad, product


def of_examples(problem, params, direction, batch):
    """Derivatives of the loss of each example, with a key of its own."""
    keys = jax.random.split(jax.random.key(2), len(jax.tree.leaves(batch)[0]))
    one = lambda x, key: derivatives(lambda p: problem.loss(p, x, key), params, direction)  # noqa: E731
    return jax.vmap(one)(batch, keys)


def assert_close(found, expected, rtol):
    error = jnp.linalg.norm(found - expected, axis=-1)
    assert np.all(error <= rtol * jnp.linalg.norm(expected, axis=-1))


def check_derivatives(problem, eps=1e-5):
    """Hold the derivatives of three examples against differences, in double precision.

    Returns:
      Whether the loss of each example is another with another key.
    """

    @jax.jit  # all of it, as a hundred small programs take longer to compile than a large one
    def compute(params, direction, batch):
        def shifted(by):
            moved = optax.tree.add_scale(params, by, direction)
            return of_examples(problem, moved, direction, batch)

        around = jax.lax.map(shifted, jnp.array([0, eps, -eps]))
        of_seed = lambda seed: problem.losses(params, batch, jax.random.key(seed))  # noqa: E731
        return around, jax.lax.map(of_seed, jnp.array([2, 3]))

    start = at_start(problem)
    (value, grad, product), (losses, other) = compute(*start)
    along = ravel_pytree(start[1])[0]
    np.testing.assert_allclose(grad[0] @ along, (value[1] - value[2]) / (2 * eps), rtol=1e-6)
    assert_close(product[0], (grad[1] - grad[2]) / (2 * eps), rtol=1e-6)
    # The losses of a batch are those of its examples, each with its own key, and nothing else.
    np.testing.assert_allclose(losses, value[0], rtol=1e-12)
    return np.asarray(losses != other)


def train(problem, tx, steps, examples=None):
    """Parameters before and after so many steps, and the state, by one traceable program."""
    tx = optax.with_extra_args_support(tx)
    examples = problem.data if examples is None else examples
    rows = data.batches(0, 0, steps, problem.examples, problem.batch_size)

    def step(carry, given):
        (params, state), (index, row) = carry, given
        batch, key = jax.tree.map(lambda leaf: leaf[row], examples), jax.random.key(index)
        value_fn = lambda p: problem.losses(p, batch, key)  # noqa: E731
        grads = jax.grad(lambda p: value_fn(p).mean())(params)
        updates, state = tx.update(grads, state, params, value_fn=value_fn)
        return (optax.apply_updates(params, updates), state), None

    params = problem.init(jax.random.key(0))
    start = params, tx.init(params)
    return params, *jax.lax.scan(step, start, (jnp.arange(steps), rows))[0]


def learn(problem, tx, steps, few=None):
    """What is measured before and after so many steps on some test examples, and where they lead.

    After them it is measured where the optimizer says to evaluate.

    Args:
      problem: to train on.
      tx: optimizer.
      steps: of it.
      few: test examples to measure on; None for all.
    """
    test = jax.tree.map(lambda leaf: leaf[:few], problem.test)

    @jax.jit
    def run():
        first, last, state = train(problem, tx, steps)
        last = eval_params(state, last)
        both = jax.tree.map(lambda *p: jnp.stack(p), first, last)
        means = lambda p: jax.tree.map(jnp.mean, problem.measure(p, test))  # noqa: E731
        return jax.lax.map(means, both), last

    return jax.device_get(run())
