"""Solvers against closed forms and Diffrax, and their derivatives against differences."""

from functools import partial

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mekax.experiments import solvers
from mekax.experiments.problems import diffrax_cost


def rotation(t, y):
    del t
    return {"x": -y["v"], "v": y["x"]}


def pendulum(params, t, y):
    """A forced one, with parameters to differentiate with respect to."""
    return jnp.stack([y[1], -params["k"] * jnp.sin(y[0]) + params["a"] * jnp.cos(t)])


PARAMS = {"k": 1.7, "a": 0.6}
DIRECTION = {"k": 0.4, "a": -1.1}


def pendulum_loss(params, integrate):
    y = integrate(lambda t, y: pendulum(params, t, y), jnp.array([1.0, 0.3]), 0.0, 1.5)
    return jnp.sum(jnp.sin(3 * y))


def fixed(field, y0, t0, t1):
    return solvers.integrate(field, y0, t0, t1, steps=20)


def test_rotation_returns():
    y0 = {"x": jnp.array([1.0, 2.0]), "v": jnp.zeros(2)}
    y = solvers.integrate(rotation, y0, 0.0, 2 * np.pi, steps=64)
    np.testing.assert_allclose(y["x"], y0["x"], atol=1e-4)
    np.testing.assert_allclose(y["v"], y0["v"], atol=1e-4)


@pytest.mark.usefixtures("float64")
def test_order_is_four():
    def error(steps):  # y' = y cos t has the solution exp(sin t)
        y = solvers.integrate(lambda t, y: y * jnp.cos(t), jnp.ones(()), 0.0, 2.0, steps=steps)
        return abs(y - np.exp(np.sin(2.0)))

    assert np.log2(error(20) / error(40)) == pytest.approx(4, abs=0.1)


@pytest.mark.usefixtures("float64")
def test_backward_undoes_forward():
    there = fixed(lambda t, y: pendulum(PARAMS, t, y), jnp.array([1.0, 0.3]), 0.0, 1.5)
    back = fixed(lambda t, y: pendulum(PARAMS, t, y), there, 1.5, 0.0)
    np.testing.assert_allclose(back, [1.0, 0.3], atol=1e-6)


def test_single_precision_stays():
    y0 = jnp.ones((), jnp.float32)
    assert solvers.integrate(lambda t, y: t * y, y0, 0.0, 1.0, steps=2).dtype == jnp.float32


@pytest.mark.usefixtures("float64")
def test_single_precision_stays_where_double_is_the_default():
    y0 = jnp.ones((), jnp.float32)
    assert solvers.integrate(lambda t, y: t * y, y0, 0.0, 1.0, steps=2).dtype == jnp.float32
    assert solvers.solve(lambda t, y: t * y, y0, 0.0, 1.0).y.dtype == jnp.float32


@pytest.mark.parametrize("steps", [0, -1])
def test_steps_are_positive(steps):
    with pytest.raises(ValueError, match="at least 1 step"):
        solvers.integrate(rotation, {"x": jnp.ones(()), "v": jnp.ones(())}, 0.0, 1.0, steps=steps)


@pytest.mark.usefixtures("float64")
def test_trajectory_at_irregular_times():
    times = jnp.array([0.2, 0.25, 0.9, 1.0, 1.0])
    ys = solvers.trajectory(lambda t, y: y * jnp.cos(t), jnp.exp(jnp.sin(0.2)), times, substeps=8)
    np.testing.assert_allclose(ys, np.exp(np.sin(times)), rtol=1e-6)
    assert ys[-1] == ys[-2]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("solver", [diffrax.Tsit5(), diffrax.Dopri5()])
def test_fixed_and_adaptive_steps_agree(solver):
    y0 = jnp.array([1.0, 0.3])
    found = solvers.solve(
        lambda t, y: pendulum(PARAMS, t, y), y0, 0.0, 1.5, rtol=1e-9, atol=1e-9, solver=solver
    )
    expected = solvers.integrate(lambda t, y: pendulum(PARAMS, t, y), y0, 0.0, 1.5, steps=200)
    assert found.succeeded
    np.testing.assert_allclose(found.y, expected, rtol=1e-7)


@pytest.mark.usefixtures("float64")
def test_fixed_steps_are_those_of_diffrax():
    given = lambda t, y: pendulum(PARAMS, t, y), jnp.array([1.0, 0.3]), 0.0, 1.5
    found, expected = solvers.integrate(*given, steps=8), diffrax_cost.integrate(*given)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("solver", [diffrax.Tsit5(), diffrax.Dopri5()])
@pytest.mark.parametrize("speed", [1.0, 40.0])  # the fast one has rejected steps
def test_evaluations_are_counted(solver, speed):
    calls = []

    def field(t, y):
        jax.debug.callback(lambda: calls.append(1))
        return speed * jnp.cos(speed * t**2) * y

    found = solvers.solve(field, jnp.ones(()), 0.0, 1.0, solver=solver)
    jax.effects_barrier()
    assert found.evaluations == len(calls)
    assert found.succeeded


def test_running_out_of_steps_is_recorded():
    def found(rate):
        return solvers.solve(lambda t, y: -rate * y, jnp.ones(()), 0.0, 1.0, max_steps=20)

    both = jax.vmap(found)(jnp.array([1.0, 1e4]))
    np.testing.assert_array_equal(both.succeeded, [True, False])
    assert both.y[0] == pytest.approx(np.exp(-1), rel=1e-3)
    assert np.isnan(both.y[1])
    assert both.evaluations[1] == 1 + 6 * 20


def test_running_out_of_steps_while_training_is_not_a_number():
    fast = jax.jit(
        lambda rate: solvers.integrate_adaptively(lambda t, y: -rate * y, 1.0 + rate, 0, 1)
    )
    assert np.isfinite(fast(1.0))
    assert np.isnan(fast(1e5))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_dynamics_that_are_not_finite_are_recorded(bad):
    found = solvers.solve(
        lambda t, y: jnp.where(t > 0.5, bad, y), jnp.ones(()), 0.0, 1.0, max_steps=50
    )
    assert not found.succeeded
    assert np.isnan(found.y)


def test_solvers_of_unknown_cost_are_refused():
    with pytest.raises(ValueError, match=r"diffrax\.Tsit5\(\) or diffrax\.Dopri5\(\)"):
        solvers.solve(rotation, {"x": jnp.ones(()), "v": jnp.ones(())}, 0, 1, solver=diffrax.Heun())


def directional(loss, params, direction, eps=1e-5):
    """Central differences of the gradient."""
    gradient = jax.jit(jax.grad(loss))
    ahead, behind = (
        gradient(jax.tree.map(lambda p, d, s=s: p + s * eps * d, params, direction))
        for s in (1, -1)
    )
    return jax.tree.map(lambda a, b: (a - b) / (2 * eps), ahead, behind)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("integrate", "rtol"), [(fixed, 1e-7), (solvers.integrate_adaptively, 1e-4)]
)
@pytest.mark.parametrize("mode", ["forward over reverse", "reverse over forward"])
def test_second_order(integrate, rtol, mode):
    params = jax.tree.map(jnp.asarray, PARAMS)
    direction = jax.tree.map(jnp.asarray, DIRECTION)

    def loss(params):
        return pendulum_loss(params, integrate)

    @jax.jit
    def product(params):
        if mode == "forward over reverse":
            return jax.jvp(jax.grad(loss), (params,), (direction,))[1]
        return jax.grad(lambda p: jax.jvp(loss, (p,), (direction,))[1])(params)

    hvp = product(params)
    expected = directional(loss, params, direction)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol), hvp, expected)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("t1", [0.001, -1.0])
def test_adaptive_steps_forward_and_backward(t1):
    found = solvers.solve(lambda t, y: y * jnp.cos(t), jnp.ones(()), 0.0, t1, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found.y, np.exp(np.sin(t1)), rtol=1e-6)


@pytest.mark.usefixtures("float64")
def test_every_example_has_its_own_derivatives():
    starts = jnp.array([[1.0, 0.3], [0.1, -2.0], [0.5, 0.5]])

    def loss(k, start):
        y = fixed(lambda t, y: pendulum({"k": k, "a": 0.6}, t, y), start, 0.0, 1.5)
        return jnp.sum(jnp.sin(3 * y))

    second = jax.grad(jax.grad(loss))
    together, one = jax.vmap(second, (None, 0)), jax.jit(second)
    np.testing.assert_allclose(together(1.7, starts), [one(1.7, start) for start in starts])


def test_what_is_not_differentiable_twice_says_so():
    def loss(a):
        return solvers.solve(lambda t, y: a * y, jnp.ones(()), 0.0, 1.0).y

    assert jax.grad(loss)(1.0) == pytest.approx(np.e, rel=1e-3)
    with pytest.raises(TypeError, match="forward-mode autodiff"):
        jax.jvp(jax.grad(loss), (1.0,), (1.0,))


@pytest.mark.usefixtures("float64")
def test_time_derivatives_of_a_known_solution():
    t = jnp.asarray(0.7)  # y' = −2 t y has the solution exp(−t²)
    found = solvers.time_derivatives(lambda t, y: -2 * t * y, t, jnp.exp(-(t**2)), 4)
    derivative = lambda t: jnp.exp(-(t**2))  # noqa: E731
    for value in found:
        derivative = jax.grad(derivative)
        np.testing.assert_allclose(value, derivative(t), rtol=1e-10)


def test_order_of_a_derivative_is_positive():
    with pytest.raises(ValueError, match="order=0"):
        solvers.time_derivatives(lambda t, y: y, jnp.zeros(()), jnp.ones(()), 0)


def test_divergence_is_the_trace_and_the_mean_of_estimates():
    def field(y):
        return jnp.array([y[0] * y[1] ** 2, jnp.sin(y[0]) + y[2], y[0] * y[2]])

    y = jnp.array([0.3, -1.2, 2.0])
    value, trace = solvers.divergence(field, y)
    np.testing.assert_allclose(value, field(y))
    np.testing.assert_allclose(trace, jnp.trace(jax.jacobian(field)(y)), rtol=1e-6)
    signs = jnp.stack(jnp.meshgrid(*[jnp.array([1.0, -1.0])] * 3), -1).reshape(-1, 3)
    estimates = jax.vmap(lambda v: solvers.hutchinson_divergence(field, y, v)[1])(signs)
    assert estimates.std() > 0.1
    np.testing.assert_allclose(estimates.mean(), trace, rtol=1e-5)


def drift(params, y):
    return jnp.tanh(params["a"] @ y)


def diffusion(params, y):
    return params["b"] * jnp.cos(y)


@pytest.mark.usefixtures("float64")
def test_paths_and_derivatives_are_those_of_a_scan():
    y0, noise = jnp.array([0.5, -1.0]), jax.random.normal(jax.random.key(3), (12, 2))
    params = {"a": jnp.array([[1.0, -2.0], [0.5, 0.3]]), "b": jnp.array([0.4, 0.9])}
    direction = {"a": jnp.array([[0.2, 1.0], [-0.4, 0.6]]), "b": jnp.array([1.0, -0.5])}

    def orders(solve):
        def path(params):
            f, g = partial(drift, params), partial(diffusion, params)
            return solve(lambda y, _: f(y), g, y0, 0.1, noise)

        def value_and_grad(params):
            return jax.value_and_grad(lambda p: jnp.sum(jnp.sin(path(p))))(params)

        return path(params), jax.jvp(value_and_grad, (params,), (direction,))

    found = jax.jit(lambda: orders(solvers.euler_maruyama))()
    expected = jax.jit(lambda: orders(diffrax_cost.scanned_path))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8), found, expected)


def test_moments_of_the_ornstein_uhlenbeck_process():
    noise = jax.random.normal(jax.random.key(0), (4_000, 100, 1))
    path = lambda noise: solvers.euler_maruyama(  # noqa: E731
        lambda y, control: control - y, lambda y: 0.5, jnp.ones(1), 0.02, noise, jnp.full(100, 2.0)
    )
    ends = jax.jit(jax.vmap(path))(noise)[:, -1, 0]
    decay = (1 - 0.02) ** np.arange(101)  # of Euler's method
    assert ends.mean() == pytest.approx(2 - decay[-1], abs=0.02)
    expected = 0.25 * 0.02 * np.sum(decay[:-1] ** 2)
    assert ends.var() == pytest.approx(expected, rel=0.1)
