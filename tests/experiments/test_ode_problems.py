"""Problems with a differential equation inside: derivatives, solvers, training, bad input."""

from dataclasses import replace
from functools import partial

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.experiments import datasets, densities, measurements, ode, problems
from mekax.experiments.data_order import batches
from mekax.experiments.models import HollowField, VectorField
from mekax.experiments.problems.continuous_flow import in_the_plane
from mekax.experiments.problems.ode_classifier import ode_classifier
from mekax.optimizers import adameka, meka, metrics

OPTIMIZERS = {"meka": meka, "adameka": adameka, "adam": lambda: optax.adam(1e-2)}
few_steps = partial(ode.integrate, steps=3)


def classifier(width=4, pixels=4, integrate=few_steps, order=0):
    """Digits cut down to a few pixels."""
    whole = datasets.digits()
    cut = [
        datasets.Images(part.image.reshape(-1, 64)[:, 18 : 18 + pixels], part.label)
        for part in (whole.train, whole.test)
    ]
    small = datasets.Dataset(*cut, whole.offset, whole.scale)
    return ode_classifier(
        "small",
        small,
        width=width,
        batch_size=32,
        epochs=1,
        order=order,
        weight=0.1 if order else 0.0,
        integrate=integrate,
    )


def flow(field=VectorField((4,)), integrate=few_steps, estimated=True):  # noqa: B008
    """Eight Gaussians of few points."""
    problem = in_the_plane(
        "small", densities.eight_gaussians, field, estimated=estimated, integrate=integrate
    )
    return replace(
        problem, data={"x": problem.data["x"][:2048]}, test={"x": problem.test["x"][:256]}
    )


def begin(problem):
    """The problem's initial parameters, by one program rather than by many operations."""
    return jax.jit(problem.init)(jax.random.key(0))


SMALL = {
    "neural ODE": classifier,
    "second derivatives": partial(classifier, order=2),
    "third derivatives": partial(classifier, order=3),
    "estimated trace": flow,
    "exact trace": partial(flow, estimated=False),
    "cheap trace": partial(flow, HollowField(3, 3, 3)),
}


def double(tree):
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), tree)


def at_start(problem, examples=3):
    """Parameters away from symmetry, a direction, and a batch, in double precision."""
    params = double(begin(problem))
    rng = np.random.default_rng(1)
    direction = jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape)), params)
    batch = jax.tree.map(lambda leaf: leaf[:examples], problem.data)
    return optax.tree.add_scale(params, 0.1, direction), direction, batch


def derivatives(problem, params, direction, batch):
    """Value, gradient and Hessian-vector product of each example, every one as a vector."""
    keys = jax.random.split(jax.random.key(2), len(jax.tree.leaves(batch)[0]))

    def one(params, example, key):
        def value_and_grad(p):
            return jax.value_and_grad(problem.loss)(p, example, key)

        (value, grad), (_, product) = jax.jvp(value_and_grad, (params,), (direction,))
        return value, grad, product

    value, *rest = jax.vmap(one, (None, 0, 0))(params, batch, keys)
    flat = [jnp.concatenate([x.reshape(len(x), -1) for x in jax.tree.leaves(t)], 1) for t in rest]
    return value, *flat


def assert_close(found, expected, rtol):
    error = jnp.linalg.norm(found - expected, axis=-1)
    assert np.all(error <= rtol * jnp.linalg.norm(expected, axis=-1))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("make", SMALL.values(), ids=list(SMALL))
def test_derivatives_of_every_example(make):
    problem, eps = make(), 1e-5
    params, direction, batch = at_start(problem)
    known = jax.jit(partial(derivatives, problem))
    value, grad, product = known(params, direction, batch)
    ahead = known(optax.tree.add_scale(params, eps, direction), direction, batch)
    behind = known(optax.tree.add_scale(params, -eps, direction), direction, batch)
    along = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(direction)])
    np.testing.assert_allclose(grad @ along, (ahead[0] - behind[0]) / (2 * eps), rtol=1e-6)
    assert_close(product, (ahead[1] - behind[1]) / (2 * eps), rtol=1e-6)
    together = problem.losses(params, batch, jax.random.key(2))
    np.testing.assert_allclose(value, together, rtol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("make", [classifier, flow])
def test_diffrax_in_place_of_fixed_steps(make):
    fixed, adaptive = (
        make(integrate=partial(ode.integrate, steps=30)),
        make(integrate=ode.integrate_adaptively),
    )
    start = at_start(fixed)
    found, expected = (jax.jit(partial(derivatives, p))(*start) for p in (adaptive, fixed))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        assert_close(ours, theirs, rtol=1e-4)


@pytest.mark.usefixtures("float64")
def test_estimated_and_exact_traces_agree_in_expectation():
    # In the plane, vᵀJv of random signs has two values, whose mean is the trace.
    estimated, exact = flow(), flow(estimated=False)
    params, direction, batch = at_start(exact, examples=1)
    many = jax.tree.map(lambda leaf: jnp.repeat(leaf, 16, axis=0), batch)
    found = jax.jit(partial(derivatives, estimated))(params, direction, many)
    expected = jax.jit(partial(derivatives, exact))(params, direction, batch)
    for estimates, mean in zip(found, expected, strict=True):
        low, high = estimates.min(axis=0), estimates.max(axis=0)
        assert np.any(high - low > 1e-3)
        np.testing.assert_allclose((low + high) / 2, mean[0], rtol=1e-10, atol=1e-14)


@pytest.mark.usefixtures("float64")
def test_diagonal_of_the_hollow_field_is_cheap():
    field, y, t = HollowField(5, 6, 7), jnp.array([0.3, -1.2, 2.0]), jnp.asarray(0.4)

    @jax.jit
    def results(key):
        params = double(field.init(key, t, y))
        condition = partial(field.apply, params, t, method="condition")
        transform = partial(field.apply, params, t, method="transform")
        cheap = ode.hollow_divergence(condition, transform, y)
        dear = ode.divergence(partial(field.apply, params, t), y)
        return jax.jacobian(condition)(y), cheap, dear

    jacobian, cheap, dear = results(jax.random.key(0))
    seen = np.abs(jacobian).sum(axis=1)  # how much row i depends on entry j
    np.testing.assert_array_equal(seen > 1e-3, ~np.eye(3, dtype=bool))
    np.testing.assert_array_equal(np.diag(seen), 0)
    for ours, expected in zip(cheap, dear, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-12)


def train(problem, tx, steps, data=None):
    """Parameters and state after so many steps of the problem's batch size."""
    tx = optax.with_extra_args_support(tx)
    params = begin(problem)
    rows = batches(0, 0, steps, problem.examples, problem.batch_size)
    data = problem.data if data is None else data

    @jax.jit
    def run(carry, rows):
        def step(carry, row):
            (params, state), (index, rows) = carry, row
            batch = jax.tree.map(lambda leaf: leaf[rows], data)
            key = jax.random.key(index)
            value_fn = lambda p: problem.losses(p, batch, key)  # noqa: E731
            grads = jax.grad(lambda p: value_fn(p).mean())(params)
            updates, state = tx.update(grads, state, params, value_fn=value_fn)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, carry, (jnp.arange(steps), rows))[0]

    return run((params, tx.init(params)), rows)


@pytest.fixture(scope="module")
def digits():
    return classifier(width=16, pixels=20)


@pytest.fixture(scope="module")
def gaussians():
    return flow(VectorField((16,)))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_classifier_learns(name, digits):
    before = digits.evaluate(begin(digits))
    after = digits.evaluate(train(digits, OPTIMIZERS[name](), 100)[0])
    assert before["test_accuracy"] < 0.3
    assert after["test_accuracy"] > 0.6
    assert 13 <= after["test_function_evaluations"] < 200  # at least two steps of six


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_flow_learns(name, gaussians):
    before = gaussians.evaluate(begin(gaussians))
    after = gaussians.evaluate(train(gaussians, OPTIMIZERS[name](), 100)[0])
    assert before["test_loss"] > 5.0
    assert after["test_loss"] < 4.0
    assert 13 <= after["test_function_evaluations"] < 200


def test_pictures(digits, gaussians, tmp_path):
    table = problems.load("cnf-table")
    for problem in (digits, gaussians, table):
        file = tmp_path / f"{problem.name}.png"
        problem.plot(begin(problem), file)
        assert file.stat().st_size > 10_000
        file.unlink()


@pytest.mark.parametrize("make", ["digits", "gaussians"])
def test_equations_too_hard_for_the_solver_are_recorded(make, request):
    problem = request.getfixturevalue(make)
    params = jax.tree.map(lambda leaf: 1e4 * leaf, begin(problem))
    found = problem.evaluate(params)
    assert found["test_function_evaluations"] == np.inf
    assert not np.isnan(found["test_loss"])


def solver(adjoint):
    """The user's own, with Diffrax."""

    def integrate(field, y0, t0, t1):
        term = diffrax.ODETerm(lambda t, y, args: field(t, y))
        return diffrax.diffeqsolve(term, diffrax.Tsit5(), t0, t1, 0.1, y0, adjoint=adjoint).ys[0]

    return integrate


@pytest.mark.parametrize("make", [classifier, flow])
@pytest.mark.parametrize(
    ("adjoint", "reason"),
    [
        (diffrax.RecursiveCheckpointAdjoint(), "forward-mode autodiff"),
        (diffrax.BacksolveAdjoint(), "custom_vjp"),
        (diffrax.ForwardMode(), "Reverse-mode differentiation does not work"),
    ],
)
def test_solvers_without_second_derivatives_are_refused(make, adjoint, reason):
    with pytest.raises(ValueError, match=f"differentiated twice.*{reason}.*DirectAdjoint"):
        make(integrate=solver(adjoint))


def test_batches_of_dynamics_that_are_not_finite_are_rejected():
    problem = classifier()
    image = problem.data["image"].astype(jnp.float32).at[:, 0].set(jnp.nan)
    params, state = train(problem, meka(), 3, {**problem.data, "image": image})
    assert metrics(state)["num_rejected"] == 3
    jax.tree.map(np.testing.assert_array_equal, params, begin(problem))


def test_measurements_are_white_and_apart():
    train, test = measurements.cells()
    assert (train.shape, test.shape) == ((456, 10), (113, 10))
    np.testing.assert_allclose(np.cov(train.T), np.eye(10), atol=1e-4)
    known = {row.tobytes() for row in train}
    assert sum(row.tobytes() in known for row in test) == 0
