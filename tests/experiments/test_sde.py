"""Paths against Diffrax and closed forms."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mekax.experiments import sde
from mekax.experiments.stochastic_series import DOUBLE_WELL, LORENZ, observe

STEPS, DT = 12, 0.1


def drift(params, y):
    return jnp.tanh(params["a"] @ y)


def diffusion(params, y):
    return params["b"] * jnp.cos(y)


def by_diffrax(params, y0, key):
    """The same paths, and the noise that drives them."""
    end = STEPS * DT
    brownian = diffrax.VirtualBrownianTree(0.0, end, DT / 4, y0.shape, key)
    terms = diffrax.MultiTerm(
        diffrax.ODETerm(lambda t, y, args: drift(params, y)),
        diffrax.ControlTerm(lambda t, y, args: jnp.diag(diffusion(params, y)), brownian),
    )
    times = DT * jnp.arange(STEPS + 1)
    found = diffrax.diffeqsolve(
        terms,
        diffrax.Euler(),
        0.0,
        end,
        None,
        y0,
        stepsize_controller=diffrax.StepTo(times),
        saveat=diffrax.SaveAt(ts=times),
        adjoint=diffrax.DirectAdjoint(),
        max_steps=STEPS,
    )
    noise = jax.vmap(brownian.evaluate)(times[:-1], times[1:]) / DT**0.5
    return found.ys, noise


def ours(params, y0, noise):
    return sde.euler_maruyama(
        lambda y, _: drift(params, y), lambda y: diffusion(params, y), y0, DT, noise
    )


@pytest.mark.usefixtures("float64")
def test_paths_and_derivatives_are_those_of_diffrax():
    key, y0 = jax.random.key(3), jnp.array([0.5, -1.0])
    params = {"a": jnp.array([[1.0, -2.0], [0.5, 0.3]]), "b": jnp.array([0.4, 0.9])}
    direction = {"a": jnp.array([[0.2, 1.0], [-0.4, 0.6]]), "b": jnp.array([1.0, -0.5])}
    path, noise = jax.jit(by_diffrax)(params, y0, key)
    np.testing.assert_allclose(jax.jit(ours)(params, y0, noise), path, rtol=1e-10)

    def orders(solve):
        def value_and_grad(params):
            return jax.value_and_grad(lambda p: jnp.sum(jnp.sin(solve(p))))(params)

        return jax.jit(lambda p: jax.jvp(value_and_grad, (p,), (direction,)))(params)

    found = orders(lambda p: ours(p, y0, noise))
    expected = orders(lambda p: by_diffrax(p, y0, key)[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8), found, expected)


def test_moments_of_the_ornstein_uhlenbeck_process():
    noise = jax.random.normal(jax.random.key(0), (4_000, 100, 1))
    path = lambda noise: sde.euler_maruyama(  # noqa: E731
        lambda y, control: control - y, lambda y: 0.5, jnp.ones(1), 0.02, noise, jnp.full(100, 2.0)
    )
    ends = jax.jit(jax.vmap(path))(noise)[:, -1, 0]
    decay = (1 - 0.02) ** np.arange(101)  # of Euler's method
    assert ends.mean() == pytest.approx(2 - decay[-1], abs=0.02)
    expected = 0.25 * 0.02 * np.sum(decay[:-1] ** 2)
    assert ends.var() == pytest.approx(expected, rel=0.1)


def test_double_well_has_two_wells():
    values = observe(DOUBLE_WELL, 0, 2_000, 21)
    assert values.shape == (2_000, 21, 1)
    assert values.dtype == np.float32
    late = values[:, -1, 0]
    assert np.mean(np.abs(late) < 0.3) < np.mean(np.abs(late - 1) < 0.3) / 1.5
    assert np.mean(late > 0) == pytest.approx(0.5, abs=0.05)
    # The density is known: exp(−2 U / g²) with U = x⁴/2 − x², widened by the noise.
    x = np.linspace(-3, 3, 2_001)
    density = np.exp(-2 * (x**4 / 2 - x**2) / DOUBLE_WELL.diffusion**2)
    square = np.sum(x**2 * density) / np.sum(density) + DOUBLE_WELL.noise**2
    assert np.mean(late**2) == pytest.approx(square, rel=0.05)


def test_lorenz_attractor_has_the_size_of_its_units():
    values = observe(LORENZ, 0, 50, 120)[:, 60:]
    assert np.all(np.abs(values.mean(axis=(0, 1))) < 0.35)
    assert np.all((values.std(axis=(0, 1)) > 0.7) & (values.std(axis=(0, 1)) < 1.3))
    np.testing.assert_array_equal(values, observe(LORENZ, 0, 50, 120)[:, 60:])
