import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mekax.curvature import per_example
from mekax.curvature._validation import check_params


@pytest.mark.parametrize("chunk_size", [None, 1, 3, 7, 50])
def test_losses_and_gradients_do_not_depend_on_the_chunk(problem, chunk_size):
    loss_fn, params, batch, _ = problem
    value_fn = per_example(loss_fn, batch, chunk_size)
    loop = [loss_fn(params, jax.tree.map(lambda x, i=i: x[i], batch)) for i in range(7)]
    np.testing.assert_allclose(value_fn(params), np.array(loop), rtol=1e-12)
    gradient = jax.grad(lambda p: value_fn(p).mean())(params)
    whole = jax.grad(lambda p: per_example(loss_fn, batch)(p).mean())(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11), gradient, whole)


def test_chunks_bound_the_memory_of_reverse_mode():
    w = jnp.ones((32, 32))
    batch = jnp.ones((512, 32))

    def loss(p, x):
        for _ in range(4):
            x = jnp.tanh(p @ x)
        return jnp.sum(x)

    def memory(chunk_size):
        def mean(p, b):
            return per_example(loss, b, chunk_size)(p).mean()

        compiled = jax.jit(jax.grad(mean)).lower(w, batch).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(16) < 0.5 * memory(None)


def test_bad_batches_and_chunks_are_named():
    def loss(p, x):
        return p * x[0]

    with pytest.raises(ValueError, match="same, non-zero number of examples"):
        per_example(loss, (jnp.ones(3), jnp.ones(4)))
    with pytest.raises(ValueError, match="same, non-zero number of examples"):
        per_example(loss, jnp.ones((0, 2)))
    with pytest.raises(ValueError, match="same, non-zero number of examples"):
        per_example(loss, {})
    with pytest.raises(ValueError, match="positive integer"):
        per_example(loss, jnp.ones(3), chunk_size=0)


def test_parameters_are_checked():
    with pytest.raises(ValueError, match="empty pytree"):
        check_params({})
    with pytest.raises(TypeError, match=r"int32 at \['steps'\]"):
        check_params({"w": jnp.ones(2), "steps": jnp.ones((), jnp.int32)})
    with pytest.raises(TypeError, match="complex"):
        check_params(jnp.ones(2, jnp.complex64))
    check_params({"w": jnp.ones(2), "frozen": None})
