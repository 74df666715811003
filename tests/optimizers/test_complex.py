"""Complex parameters, by Optax's convention: pass the conjugate of what `jax.grad` returns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.optimizers import (
    adameka,
    meka,
    metrics,
    scale_by_expected_improvement,
    scale_by_kalman_filter,
)

STEPS = 60


def draw(rng, *shape):
    return jnp.asarray(rng.normal(size=shape) + 1j * rng.normal(size=shape))


def problem(steps=STEPS):
    """|A z − b|² of 8 rows drawn anew for every batch, and the start; z is complex."""
    rng = np.random.default_rng(0)
    a, solution = draw(rng, steps, 8, 3), draw(rng, 3)
    b = a @ solution + 0.1 * draw(rng, steps, 8)
    losses = lambda z, batch: jnp.abs(batch[0] @ z - batch[1]) ** 2  # noqa: E731
    return losses, draw(rng, 3), (a, b), solution


def trained(tx, losses, params, batches, conjugate=True, given=True):
    def step(carry, batch):
        params, state = carry
        value_fn = lambda p: losses(p, batch)  # noqa: E731
        grads = jax.grad(lambda p: value_fn(p).mean())(params)
        grads = jax.tree.map(jnp.conj, grads) if conjugate else grads
        extra_args = {"grad": grads} if given else {}
        updates, state = tx.update(grads, state, params, value_fn=value_fn, **extra_args)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, metrics(state))

    run = jax.jit(lambda c: jax.lax.scan(step, c, batches)[1])
    return run((params, tx.init(params)))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("given", [True, False], ids=["grad=", "no grad="])
def test_steps_are_those_of_real_and_imaginary_parts(given):
    """Along a direction that is linear in the gradient; Adam's squares differ by intent."""
    losses, z, batches, _ = problem()
    tx = optax.chain(optax.trace(0.9), scale_by_expected_improvement())
    whole, known = trained(tx, losses, z, batches, given=given)
    split, others = trained(
        tx, lambda p, batch: losses(p[0] + 1j * p[1], batch), (z.real, z.imag), batches, given=given
    )
    np.testing.assert_allclose(whole.real, split[0], rtol=1e-8)
    np.testing.assert_allclose(whole.imag, split[1], rtol=1e-8)
    for name in ("step_size", "slope", "curvature", "radius", "loss_mean"):
        np.testing.assert_allclose(known[name], others[name], rtol=1e-8)


@pytest.mark.parametrize("mixed", [False, True], ids=["complex", "mixed with real"])
def test_adameka_reaches_the_optimum(mixed):
    losses, z, batches, solution = problem(2 * STEPS)
    params, fn = z.astype(jnp.complex64), losses
    if mixed:
        params = {"z": params, "scale": jnp.float32(0.5)}
        fn = lambda p, batch: losses(p["z"] * p["scale"], batch)  # noqa: E731
    path, known = trained(adameka(), fn, params, batches)
    end = path["z"][-1] * path["scale"][-1] if mixed else path[-1]
    np.testing.assert_allclose(end, solution, atol=0.05)
    assert np.all(known["gradient_mismatch"] < 0.01)
    assert jax.tree.map(lambda p: p.dtype, path) == jax.tree.map(lambda p: p.dtype, params)
    assert all(x.dtype in (jnp.float32, jnp.int32) for x in known.values())


def test_a_gradient_that_is_not_conjugated_is_seen():
    losses, z, batches, _ = problem()
    _, known = trained(adameka(), losses, z, batches, conjugate=False)
    assert np.mean(known["gradient_mismatch"] > 0.1) > 0.5
    value_fn = lambda p: losses(p, jax.tree.map(lambda x: x[0], batches))  # noqa: E731
    grads = jax.grad(lambda p: value_fn(p).mean())(z)
    with pytest.raises(ValueError, match=r"conjugate of what jax\.grad returns"):
        adameka().update(grads, adameka().init(z), z, value_fn=value_fn)


@pytest.mark.parametrize("make", [meka, scale_by_kalman_filter])
def test_the_filter_asks_for_real_and_imaginary_parts(make):
    with pytest.raises(TypeError, match=r"complex64 at \['z'\].*real and imaginary parts"):
        make().init({"w": jnp.ones(2), "z": jnp.ones(2, jnp.complex64)})
