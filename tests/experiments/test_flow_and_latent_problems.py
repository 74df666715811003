"""Problems of flows and of latent paths: derivatives, data, solvers, training."""

from functools import partial

import diffrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from mekax.experiments import densities, ode
from mekax.experiments.data_order import batches
from mekax.experiments.irregular_series import END, damped_oscillations
from mekax.experiments.models import Recurrent
from mekax.experiments.problems import coupling_flow, flow, latent_ode, latent_sde, residual_flow
from mekax.experiments.problems.latent_series import latent_series
from mekax.experiments.stochastic_series import DOUBLE_WELL
from mekax.optimizers import adameka, meka

OPTIMIZERS = {"meka": meka, "adameka": adameka, "adam": lambda: optax.adam(1e-2)}


def in_the_plane(flow_, batch_size=32):
    return flow.density("small", densities.eight_gaussians, flow_, batch_size=batch_size, epochs=1)


def residual(width=4, blocks=2, randomized=True):
    return in_the_plane(
        residual_flow.residual_flow(blocks=blocks, width=width, randomized=randomized)
    )


def coupling(width=4, layers=2):
    return in_the_plane(coupling_flow.coupling_flow(layers=layers, width=width))


def irregular(make=latent_ode.differential, width=4, longest=6, **options):
    train, test = (damped_oscillations(seed, 200, longest=longest) for seed in (0, 1))
    decoder = make(latent=3, width=width, **options)
    return latent_series(
        "small", train, test, decoder, latent=3, width=width, batch_size=32, epochs=1
    )


def stochastic(width=4, seen=4):
    return latent_sde.latent_sde(
        "small",
        DOUBLE_WELL,
        train=200,
        test=100,
        seen=seen,
        later=2,
        latent=2,
        width=width,
        batch_size=32,
        epochs=1,
    )


SMALL = {
    "residual flow": residual,
    "exact residual flow": partial(residual, randomized=False),
    "coupling flow": coupling,
    "latent ODE": irregular,
    "latent recurrent network": partial(irregular, latent_ode.gated),
    "latent SDE": stochastic,
}


def at_start(problem, examples=3):
    """Parameters away from symmetry, a direction, and a batch, in double precision."""
    double = lambda leaf: leaf.astype(jnp.float64)  # noqa: E731
    params = jax.tree.map(double, problem.init(jax.random.key(0)))
    keys = optax.tree.split_key_like(jax.random.key(1), params)
    direction = jax.tree.map(lambda key, p: jax.random.normal(key, p.shape), keys, params)
    batch = jax.tree.map(lambda leaf: leaf[:examples], problem.data)
    return optax.tree.add_scale(params, 0.1, direction), direction, batch


def derivatives(problem, params, direction, batch):
    """Value, gradient and Hessian-vector product of each example, every one as a vector."""
    keys = jax.random.split(jax.random.key(2), len(jax.tree.leaves(batch)[0]))

    def one(params, example, key):
        def value_and_grad(p):
            value, grad = jax.value_and_grad(problem.loss)(p, example, key)
            return value, ravel_pytree(grad)[0]

        (value, grad), (_, product) = jax.jvp(value_and_grad, (params,), (direction,))
        return value, grad, product

    return jax.vmap(one, (None, 0, 0))(params, batch, keys)


def assert_close(found, expected, rtol):
    error = jnp.linalg.norm(found - expected, axis=-1)
    assert np.all(error <= rtol * jnp.linalg.norm(expected, axis=-1))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", SMALL)
def test_derivatives_of_every_example(name):
    problem, eps = SMALL[name](), 1e-5

    @jax.jit  # all of it, as a hundred small programs take longer to compile than a large one
    def compute():
        params, direction, batch = at_start(problem)

        def shifted(by):
            moved = optax.tree.add_scale(params, by, direction)
            return derivatives(problem, moved, direction, batch)

        around = jax.lax.map(shifted, jnp.array([0, eps, -eps]))
        losses = [problem.losses(params, batch, jax.random.key(seed)) for seed in (2, 3)]
        return around, ravel_pytree(direction)[0], losses

    (value, grad, product), along, (losses, other) = compute()
    np.testing.assert_allclose(grad[0] @ along, (value[1] - value[2]) / (2 * eps), rtol=1e-6)
    assert_close(product[0], (grad[1] - grad[2]) / (2 * eps), rtol=1e-6)
    # The losses of a batch are those of its examples, each with its own key, and nothing else.
    np.testing.assert_allclose(losses, value[0], rtol=1e-12)
    random = name not in ("exact residual flow", "coupling flow")
    np.testing.assert_array_equal(losses != other, random)


def adaptive(field, y0, times):
    """As `ode.trajectory`, by Diffrax."""
    start, end = times[0], jnp.maximum(times[-1], times[0] + 1e-3)
    found = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: field(t, y)),
        diffrax.Tsit5(),
        start,
        end,
        0.01,
        y0,
        stepsize_controller=diffrax.PIDController(rtol=1e-8, atol=1e-8),
        saveat=diffrax.SaveAt(ts=times),
        adjoint=diffrax.DirectAdjoint(),
        max_steps=256,
    )
    return found.ys


@pytest.mark.usefixtures("float64")
def test_diffrax_in_place_of_fixed_steps():
    @jax.jit
    def gradients():
        fixed = irregular(trajectory=partial(ode.trajectory, substeps=20))
        params, _, batch = at_start(fixed, examples=2)
        keys = jax.random.split(jax.random.key(2), 2)

        def of(problem):
            one = lambda *given: ravel_pytree(jax.grad(problem.loss)(*given))[0]  # noqa: E731
            return jax.vmap(one, (None, 0, 0))(params, batch, keys)

        return of(irregular(trajectory=adaptive)), of(fixed)

    assert_close(*gradients(), rtol=1e-5)


def test_series_are_irregular():
    series = damped_oscillations(0, 400)
    assert np.all(np.diff(series.time) >= 0)
    assert np.all((series.time > 0) & (series.time < END))
    there = series.observed | series.hidden
    assert not np.any(series.observed & series.hidden)
    assert np.all(there == there[..., :1])
    length = there[..., 0].sum(axis=1)
    assert length.min() == 16
    assert length.max() == 24
    assert series.observed.sum() / there.sum() == pytest.approx(0.5, abs=0.02)
    padding = np.repeat(series.time[:, -1:], 24, axis=1)[~there[..., 0]]
    np.testing.assert_array_equal(series.time[~there[..., 0]], padding)
    assert series.value.std() == pytest.approx(0.65, abs=0.1)


def test_what_is_not_observed_plays_no_part():
    problem = irregular()
    params = jax.jit(problem.init)(jax.random.key(0))
    batch = {name: np.asarray(leaf[:8]) for name, leaf in problem.data.items()}

    @jax.jit
    def losses(value):
        return problem.losses(params, {**batch, "value": value}, jax.random.key(1))

    value, observed = batch["value"], batch["observed"]
    before = losses(value)
    np.testing.assert_array_equal(losses(np.where(observed, value, np.float32(1e6))), before)
    # What is observed does, early and late: in the encoder as well, or in the likelihood alone.
    for place in (0, -1):
        changed = value.copy()
        changed[:, place] += 1
        np.testing.assert_array_equal(losses(changed) != before, observed[:, place].any(axis=1))


def test_recurrent_units_are_those_of_flax():
    x, seen = jax.random.normal(jax.random.key(0), (5, 3)), jnp.array([1, 1, 0, 1, 1], bool)
    ours = Recurrent(4, reverse=True)
    params = ours.init(jax.random.key(1), x, seen)
    states = ours.apply(params, x, seen)
    cell, own = nn.GRUCell(4), params["params"]
    parts = jax.tree.map(lambda leaf: jnp.split(leaf, 3, axis=-1), own)
    theirs = cell.init(jax.random.key(2), jnp.zeros(4), x[0])["params"]
    for index, gate in enumerate("rzn"):
        theirs[f"i{gate}"]["kernel"] = parts["Dense_0"]["kernel"][index]
        theirs[f"h{gate}"]["kernel"] = parts["kernel"][index]
    state = jnp.zeros(4)
    for index in (4, 3, 1, 0):
        state, _ = cell.apply({"params": theirs}, state, x[index])
        np.testing.assert_allclose(states[index], state, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(states[2], states[3])


@pytest.mark.parametrize("make", [residual, coupling])
def test_flow_is_invertible_and_has_the_right_determinant(make):
    problem = make()

    @jax.jit
    def measured():
        params = problem.init(jax.random.key(0))
        keys = optax.tree.split_key_like(jax.random.key(1), params)
        noise = jax.tree.map(lambda key, p: 0.3 * jax.random.normal(key, p.shape), keys, params)
        return problem.measure(optax.tree.add(params, noise), grid)

    line = jnp.linspace(-12, 12, 200)
    grid = {"x": jnp.stack(jnp.meshgrid(line, line), axis=-1).reshape(-1, 2)}
    found = measured()
    assert found["round_trip"].max() < 1e-4
    # A density has integral 1.
    integral = jnp.exp(-found["loss"]).sum() * (line[1] - line[0]) ** 2
    assert integral == pytest.approx(1, abs=2e-3)


def test_estimated_loss_is_the_exact_one_on_average():
    problem = residual()

    @jax.jit
    def both():
        params = problem.init(jax.random.key(0))
        batch = jax.tree.map(lambda leaf: jnp.repeat(leaf[:1], 8_000, axis=0), problem.data)
        few = jax.tree.map(lambda leaf: leaf[:1], batch)
        return problem.losses(params, batch, jax.random.key(1)), problem.measure(params, few)

    found, exact = both()
    assert 0.01 < found.std() < 1
    assert abs(found.mean() - exact["loss"][0]) < 4 * found.std() / np.sqrt(len(found))


def test_bands_have_the_right_probability():
    samples = jax.random.normal(jax.random.key(0), (39, 20_000))
    low, high = latent_sde.band(samples)
    more = jax.random.normal(jax.random.key(1), (20_000,))
    assert np.mean((low <= more) & (more <= high)) == pytest.approx(latent_sde.BAND, abs=0.01)


@pytest.mark.parametrize("make", [coupling, irregular, stochastic])
def test_picture(make, tmp_path):
    problem = make()
    problem.plot(jax.jit(problem.init)(jax.random.key(0)), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def train(problem, tx, steps):
    """Averages of what is measured of test examples, before and after so many steps."""
    tx = optax.with_extra_args_support(tx)
    rows = batches(0, 0, steps, problem.examples, problem.batch_size)

    def measure(params):
        found = problem.measure(params, jax.tree.map(lambda leaf: leaf[:200], problem.test))
        return {name: jnp.mean(values) for name, values in found.items()}

    @jax.jit
    def run():
        def step(carry, row):
            (params, state), (index, rows) = carry, row
            batch = jax.tree.map(lambda leaf: leaf[rows], problem.data)
            value_fn = lambda p: problem.losses(p, batch, jax.random.key(index))  # noqa: E731
            grads = jax.grad(lambda p: value_fn(p).mean())(params)
            updates, state = tx.update(grads, state, params, value_fn=value_fn)
            return (optax.apply_updates(params, updates), state), None

        params = problem.init(jax.random.key(0))
        (learned, _), _ = jax.lax.scan(step, (params, tx.init(params)), (jnp.arange(steps), rows))
        return jax.lax.map(measure, jax.tree.map(lambda *p: jnp.stack(p), params, learned))

    found = jax.device_get(run())
    return [{name: values[i] for name, values in found.items()} for i in (0, 1)]


# What 100 steps of 32 examples reach from where, by which optimizer.
LESSONS = {
    "residual flow": ("loss", 5.5, {"meka": 4.5, "adameka": 4.3, "adam": 4.5}),
    "coupling flow": ("loss", 6.0, {"meka": 5.0, "adameka": 5.0, "adam": 5.0}),
    "latent ODE": ("reconstruction_error", 0.56, {"meka": 0.53, "adameka": 0.53, "adam": 0.53}),
    "latent recurrent network": ("loss", 21, {"meka": 20, "adameka": 18, "adam": 18}),
    "latent SDE": ("loss", 40, {"meka": 20, "adameka": 20, "adam": 20}),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", LESSONS)
def test_problem_is_learned(name, optimizer):
    metric, start, reached = LESSONS[name]
    before, after = train(SMALL[name](), OPTIMIZERS[optimizer](), 100)
    assert after[metric] < reached[optimizer] < start < before[metric]
    assert np.all(np.isfinite(list(after.values())))
