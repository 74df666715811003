"""Problems whose losses are more than a network's output: derivatives, solvers, training."""

import dataclasses
from functools import partial

import diffrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from mekax.experiments import data, registry, solvers
from mekax.experiments.models import GRU, HollowField, Recurrent, SmoothMLP, VectorField
from mekax.experiments.problem import Source
from mekax.experiments.problems import (
    bandit,
    clinic,
    clinic_visits,
    continuous_flow,
    coupling_flow,
    deep_kalman_filter,
    deep_sets,
    densities,
    diffusion,
    flow,
    graph_atlas,
    graph_generation,
    latent_ode,
    latent_sde,
    neural_cde,
    ode_classifier,
    residual_flow,
    spoken_vowels,
    text,
    variational_autoencoder,
)
from mekax.experiments.problems.irregular_series import damped_oscillations
from mekax.experiments.problems.stochastic_series import DOUBLE_WELL
from mekax.optimizers import adameka, meka, metrics
from problem_checks import (
    assert_close,
    at_start,
    check_derivatives,
    drawn_like,
    learn,
    of_examples,
    train,
)

OPTIMIZERS = {"meka": meka, "adameka": adameka, "adam": lambda: optax.adam(1e-2)}
POINTS = densities.eight_gaussians(0, 2048), densities.eight_gaussians(1, 256)
few_steps = partial(solvers.integrate, steps=3)


def few_pixels(pixels):
    """Digits cut down."""
    whole = data.digits()
    cut = [
        data.Images(part.image.reshape(-1, 64)[:, 18 : 18 + pixels], part.label)
        for part in (whole.train, whole.test)
    ]
    return data.Dataset(*cut, whole.offset, whole.scale)


def classifier(width=4, pixels=4, integrate=few_steps, order=0):
    options = {"width": width, "batch_size": 32, "epochs": 1, "integrate": integrate}
    small = few_pixels(pixels)
    return ode_classifier.ode_classifier("small", small, order=order, weight=0.1, **options)


def continuous(field=VectorField((4,)), integrate=few_steps, estimated=True):  # noqa: B008
    options = {"estimated": estimated, "integrate": integrate}
    return continuous_flow.continuous_flow("small", POINTS, field, **options)


def residual(width=4, blocks=2, randomized=True):
    map_ = residual_flow.residual_flow(blocks=blocks, width=width, randomized=randomized)
    return flow.density("small", POINTS, map_, batch_size=32, epochs=1)


def coupling(width=4, layers=2):
    map_ = coupling_flow.coupling_flow(layers=layers, width=width)
    return flow.density("small", POINTS, map_, batch_size=32, epochs=1)


def irregular(make=latent_ode.differential, width=4, longest=6, **options):
    series = [damped_oscillations(seed, 200, longest=longest) for seed in (0, 1)]
    sizes = {"latent": 3, "width": width}
    decoder = make(**sizes, **options)
    return latent_ode.latent_series("small", *series, decoder, **sizes, batch_size=32, epochs=1)


def stochastic(width=4, seen=4):
    sizes = {"train": 200, "test": 100, "seen": seen, "later": 2, "latent": 2, "width": width}
    options = {"process": DOUBLE_WELL, "batch_size": 32, "epochs": 1}
    return latent_sde.latent_sde("small", Source(), **sizes, **options)


def visits(make=latent_ode.differential):
    sizes = {"latent": 3, "width": 6}
    model = clinic.latent_path(make(**sizes), **sizes)
    return clinic.forecasts("small", *clinic_visits.pbcseq(), model)


def filtered_visits():
    model = deep_kalman_filter.deep_kalman_filter(latent=3, width=6)
    return clinic.forecasts("small", *clinic_visits.pbcseq(), model)


def utterances(seed, count=200, longest=6):
    """Drawn: of who speaks tells where the values are, and whether they rise."""
    rng = np.random.default_rng(seed)
    label = rng.integers(spoken_vowels.SPEAKERS, size=count).astype(np.int32)
    length = rng.integers(2, longest + 1, size=count).astype(np.int32)
    value = rng.normal(size=(count, longest, spoken_vowels.CHANNELS))
    value[..., 0] += 3 * (label % 3 - 1)[:, None]
    value[..., 1] += (label // 3 - 1)[:, None] * np.arange(longest)
    return spoken_vowels.Utterances(value.astype(np.float32), length, label)


def controlled(integrate=neural_cde.one_step):
    sizes = {"size": 4, "width": 6, "batch_size": 32, "epochs": 1}
    return neural_cde.controlled("small", *map(utterances, (0, 1)), **sizes, integrate=integrate)


def graphs():
    network = graph_generation.GraphAttention(width=6, rounds=1, components=3, block=4)
    options = {"batch_size": 32, "epochs": 1}
    return graph_generation.generation("small", graph_atlas.atlas(), network, **options)


def sets():
    small = few_pixels(30)
    parts = [deep_sets.draw_sets(part, 0, 300) for part in small[:2]]
    options = {"width": 8, "batch_size": 32, "epochs": 1}
    return deep_sets.sums("small", *parts, float(small.scale[0]), **options)


def encoder(pixels=6):
    options = {"latent": 2, "width": 5, "batch_size": 32, "epochs": 1}
    return variational_autoencoder.autoencoder("small", few_pixels(pixels), **options)


def denoiser(pixels=6):
    options = {"width": 5, "batch_size": 32, "epochs": 1}
    return diffusion.denoising("small", few_pixels(pixels), **options)


def policy(drawn_by=None, pixels=20):
    options = {"width": 8, "batch_size": 32, "epochs": 1, "drawn_by": drawn_by}
    return bandit.bandit("small", few_pixels(pixels), **options)


def policy_drawn_by_another():
    """Whose loss, unlike that of a policy that draws its own actions, has differences to take."""
    return policy(drawn_like(policy().init, 0.3, seed=3))


def characters():
    return text.next_character("small", Source(), GRU(len(text.ALPHABET) + 1, size=2, width=3))


SMALL = {
    "curve": partial(registry.load, "regression"),
    "Poisson equation": partial(registry.load, "poisson"),
    "factorization": partial(registry.load, "factorization"),
    "recurrent network": characters,
    "neural ODE": classifier,
    "second derivatives": partial(classifier, order=2),
    "third derivatives": partial(classifier, order=3),
    "estimated trace": continuous,
    "exact trace": partial(continuous, estimated=False),
    "cheap trace": partial(continuous, HollowField(3, 3, 3)),
    "residual flow": residual,
    "exact residual flow": partial(residual, randomized=False),
    "coupling flow": coupling,
    "graph attention network": graphs,
    "deep sets": sets,
    "neural CDE": controlled,
    "Gaussian filter": partial(registry.load, "infusion"),
    "forecasts by an equation": visits,
    "forecasts by a recurrent network": partial(visits, latent_ode.gated),
    "deep Kalman filter": filtered_visits,
    "latent ODE": irregular,
    "latent recurrent network": partial(irregular, latent_ode.gated),
    "latent SDE": stochastic,
    "variational autoencoder": encoder,
    "diffusion": denoiser,
    "bandit": policy_drawn_by_another,
}
RANDOM = {"estimated trace", "residual flow", *list(SMALL)[-9:]}


def begin(problem):
    """The problem's initial parameters, by one program rather than by many operations."""
    return jax.jit(problem.init)(jax.random.key(0))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", SMALL)
def test_derivatives_of_every_example(name):
    assert np.any(check_derivatives(SMALL[name]())) == (name in RANDOM)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("make", [classifier, continuous])
def test_diffrax_in_place_of_fixed_steps(make):
    fixed = make(integrate=partial(solvers.integrate, steps=30))
    adaptive = make(integrate=solvers.integrate_adaptively)
    start = at_start(fixed)
    found, expected = (jax.jit(partial(of_examples, p))(*start) for p in (adaptive, fixed))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        assert_close(ours, theirs, rtol=1e-4)


def adaptive_trajectory(field, y0, times):
    """As `solvers.trajectory`, by Diffrax."""
    start, end = times[0], jnp.maximum(times[-1], times[0] + 1e-3)
    return diffrax.diffeqsolve(
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
    ).ys


@pytest.mark.usefixtures("float64")
def test_diffrax_in_place_of_fixed_steps_along_a_series():
    fixed = irregular(trajectory=partial(solvers.trajectory, substeps=20))
    params, _, batch = at_start(fixed, examples=2)

    @jax.jit
    def gradients(params):
        keys = jax.random.split(jax.random.key(2), 2)

        def of(problem):
            one = lambda *given: ravel_pytree(jax.grad(problem.loss)(*given))[0]  # noqa: E731
            return jax.vmap(one, (None, 0, 0))(params, batch, keys)

        return of(irregular(trajectory=adaptive_trajectory)), of(fixed)

    assert_close(*gradients(params), rtol=1e-5)


@pytest.mark.usefixtures("float64")
def test_estimated_and_exact_traces_agree_in_expectation():
    # In the plane, vᵀJv of random signs has two values, whose mean is the trace.
    estimated, exact = continuous(), continuous(estimated=False)

    @jax.jit
    def both(params, direction, batch):
        many = jax.tree.map(lambda leaf: jnp.repeat(leaf, 16, axis=0), batch)
        found = of_examples(estimated, params, direction, many)
        return found, of_examples(exact, params, direction, batch)

    for estimates, mean in zip(*both(*at_start(exact, examples=1)), strict=True):
        low, high = estimates.min(axis=0), estimates.max(axis=0)
        assert np.any(high - low > 1e-3)
        np.testing.assert_allclose((low + high) / 2, mean[0], rtol=1e-10, atol=1e-14)


@pytest.mark.usefixtures("float64")
def test_diagonal_of_the_hollow_field_is_cheap():
    field, y, t = HollowField(5, 6, 7), jnp.array([0.3, -1.2, 2.0]), jnp.asarray(0.4)

    @jax.jit
    def results(key):
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), field.init(key, t, y))
        condition = partial(field.apply, params, t, method="condition")
        transform = partial(field.apply, params, t, method="transform")
        cheap = solvers.hollow_divergence(condition, transform, y)
        dear = solvers.divergence(partial(field.apply, params, t), y)
        return jax.jacobian(condition)(y), cheap, dear

    jacobian, cheap, dear = results(jax.random.key(0))
    seen = np.abs(jacobian).sum(axis=1)  # how much row i depends on entry j
    np.testing.assert_array_equal(seen > 1e-3, ~np.eye(3, dtype=bool))
    np.testing.assert_array_equal(np.diag(seen), 0)
    for ours, expected in zip(cheap, dear, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-12)


def solver(adjoint):
    """The user's own, with Diffrax."""

    def integrate(field, y0, t0, t1):
        term = diffrax.ODETerm(lambda t, y, args: field(t, y))
        return diffrax.diffeqsolve(term, diffrax.Tsit5(), t0, t1, 0.1, y0, adjoint=adjoint).ys[0]

    return integrate


@pytest.mark.parametrize("make", [classifier, continuous, controlled])
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


@pytest.fixture(scope="module")
def digits():
    return classifier(width=16, pixels=20)


@pytest.fixture(scope="module")
def actor():
    return policy()


@pytest.fixture(scope="module")
def gaussians():
    return continuous(VectorField((16,)))


# What 100 steps of which optimizer reach from where. One is enough to tell that a problem is
# learned; ours, which compile for long, take turns among equations, flows, filters and sets.
LESSONS = {
    "curve": ("loss", 1.0, "adam", 0.01),
    "Poisson equation": ("error", 0.6, "meka", 0.1),
    "factorization": ("loss", 0.9, "adam", 0.4),
    "recurrent network": ("accuracy", 0.02, "adam", 0.3),
    "variational autoencoder": ("loss", 3.5, "adam", 1.8),
    "diffusion": ("loss", 1.0, "adam", 0.75),
    "bandit": ("accuracy", 0.2, "adam", 0.4),
    "neural ODE": ("accuracy", 0.3, "adameka", 0.6),
    "estimated trace": ("loss", 5.0, "meka", 4.0),
    "residual flow": ("loss", 5.5, "adam", 4.5),
    "coupling flow": ("loss", 6.0, "adameka", 5.0),
    "latent ODE": ("reconstruction_error", 0.56, "meka", 0.53),
    "latent recurrent network": ("loss", 21, "adameka", 18),
    "latent SDE": ("loss", 40, "adam", 20),
    "graph attention network": ("loss", 13, "adam", 11),
    "deep sets": ("error", 8, "adameka", 5.5),
    "Gaussian filter": ("error", 1.2, "adam", 0.4),
    "forecasts by an equation": ("forecast_error", 1.3, "adam", 1.1),
    "forecasts by a recurrent network": ("forecast_error", 1.3, "adam", 1.1),
    "deep Kalman filter": ("forecast_error", 1.3, "adameka", 1.15),
    "neural CDE": ("accuracy", 0.15, "adam", 0.3),
}


@pytest.mark.parametrize("name", LESSONS)
def test_problem_is_learned(name, request):
    metric, start, optimizer, reached = LESSONS[name]
    larger = {"neural ODE": "digits", "estimated trace": "gaussians", "bandit": "actor"}
    problem = request.getfixturevalue(larger[name]) if name in larger else SMALL[name]()

    found, _ = learn(problem, OPTIMIZERS[optimizer](), 100, few=200)
    before, after = found[metric]
    assert (
        before < start < reached < after
        if metric == "accuracy"
        else after < reached < start < before
    )
    assert all(np.isfinite(values[1]) for values in found.values())
    if "function_evaluations" in found:
        assert 13 <= found["function_evaluations"][1] < 200  # at least two steps of six


@pytest.mark.parametrize("make", ["digits", "gaussians"])
def test_equations_too_hard_for_the_solver_are_recorded(make, request):
    problem = request.getfixturevalue(make)
    params = jax.tree.map(lambda leaf: 1e4 * leaf, begin(problem))
    found = problem.evaluate(params)
    assert found["test_function_evaluations"] == np.inf
    assert not np.isnan(found["test_loss"])


def test_batches_of_dynamics_that_are_not_finite_are_rejected():
    problem = classifier()
    image = problem.data["image"].astype(jnp.float32).at[:, 0].set(jnp.nan)
    poisoned = {**problem.data, "image": image}
    start, params, state = jax.jit(lambda: train(problem, meka(), 3, poisoned))()
    assert metrics(state)["num_rejected"] == 3
    jax.tree.map(np.testing.assert_array_equal, params, start)


def test_what_is_not_observed_plays_no_part():
    problem = irregular()
    params = begin(problem)
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


@pytest.mark.usefixtures("float64")
def test_a_controlled_equation_is_that_of_diffrax():
    """Its path, its control term, and its end, which is not that of the padding."""
    problem = controlled(partial(solvers.integrate, steps=20))
    sizes, unit = (4, spoken_vowels.CHANNELS + 1), 10
    place = int(jnp.argmin(problem.data["length"] != 4))
    assert problem.data["value"].shape[1] > problem.data["length"][place] == 4

    @jax.jit
    def both(params, _, batch):
        value, label = batch["value"][place].astype(jnp.float64), batch["label"][place]
        kept = value[:4]
        time = jnp.arange(len(kept)) / unit
        known = jnp.concatenate([time[:, None], kept], axis=1)
        coefficients = diffrax.backward_hermite_coefficients(time, known)
        network = SmoothMLP((6,), sizes[0] * sizes[1])

        def matrix(t, z, args):
            return jnp.tanh(network.apply(params["field"], z)).reshape(sizes) / jnp.sqrt(sizes[1])

        term = diffrax.ControlTerm(matrix, diffrax.CubicInterpolation(time, coefficients)).to_ode()
        start = nn.Dense(4).apply(params["start"], kept[0])
        control = diffrax.PIDController(rtol=1e-9, atol=1e-9, jump_ts=time)
        limits = {"stepsize_controller": control, "max_steps": 2_000}
        z = diffrax.diffeqsolve(term, diffrax.Tsit5(), 0, time[-1], 0.01, start, **limits).ys[0]
        logits = nn.Dense(spoken_vowels.SPEAKERS).apply(params["head"], z)
        expected = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        return problem.losses(params, batch, jax.random.key(0))[place], expected

    found, expected = both(*at_start(problem, place + 1))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


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


@pytest.mark.usefixtures("float64")
def test_a_policy_is_right_in_expectation_about_its_expected_cost():
    """Value, gradient and Hessian-vector product, whoever draws the actions."""
    own = policy()

    def at(problem, params, direction, batch):
        many = jax.tree.map(lambda leaf: jnp.repeat(leaf, 40_000, axis=0), batch)
        found = of_examples(problem, params, direction, many)
        problem = dataclasses.replace(
            own,
            loss=lambda p, x, key: own.measure(p, jax.tree.map(lambda y: y[None], x))["loss"][0],
        )
        return found, of_examples(problem, params, direction, batch)

    start = at_start(own, examples=1)
    for problem in own, policy_drawn_by_another():
        for estimates, exact in zip(*jax.jit(partial(at, problem))(*start), strict=True):
            error = np.linalg.norm(estimates.mean(axis=0) - exact[0])
            noise = np.sqrt(np.sum(estimates.var(axis=0)) / len(estimates))
            assert error < 3 * noise < 0.1 * np.linalg.norm(exact)


def test_bands_have_the_right_probability():
    samples = jax.random.normal(jax.random.key(0), (39, 20_000))
    low, high = latent_sde.band(samples)
    more = jax.random.normal(jax.random.key(1), (20_000,))
    assert np.mean((low <= more) & (more <= high)) == pytest.approx(latent_sde.BAND, abs=0.01)


def table():
    return registry.load("cnf-table")


def infusions():
    return registry.load("infusion")


@pytest.mark.parametrize(
    "make",
    [
        classifier,
        continuous,
        table,
        coupling,
        irregular,
        stochastic,
        graphs,
        sets,
        visits,
        infusions,
        controlled,
    ],
)
def test_picture(make, tmp_path):
    problem = make()
    problem.plot(begin(problem), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000
