"""Problems whose losses sum over states, draw bits, or hold for every hyperparameter."""

import sys
from functools import partial
from itertools import pairwise, product
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.experiments import data, registry
from mekax.experiments.errors import UsageError
from mekax.experiments.models import SmoothMLP
from mekax.experiments.problems import (
    discrete_autoencoder,
    forward_algorithm,
    hypernetwork,
    motions,
    switching_dynamics,
)
from mekax.optimizers import adameka
from problem_checks import at_start, check_derivatives, derivatives, drawn_like, learn, of_examples


def drawn_motions(seed, count=60, times=6):
    """Steps of a random walk in place of recordings."""
    rng = np.random.default_rng(seed)
    value = 0.3 * rng.normal(size=(count, times, motions.CHANNELS)).cumsum(axis=1)
    return motions.Motions(value.astype(np.float32), np.arange(count, dtype=np.int32) % 4)


def switching(states=2, latent=2, times=6):
    parts = [drawn_motions(seed, times=times) for seed in (0, 1)]
    sizes = {"states": states, "latent": latent, "width": 4, "batch_size": 32, "epochs": 1}
    return switching_dynamics.switching("small", *parts, **sizes)


def few_pixels(count=1_000):
    """Nine pixels in the middle of the digits."""
    whole = data.digits()
    cut = [
        data.Images(part.image[:count, 2:5, 2:5], part.label[:count])
        for part in (whole.train, whole.test)
    ]
    return whole._replace(train=cut[0], test=cut[1])


def bits(**options):
    sizes = {"bits": 2, "width": 3, "batch_size": 32, "epochs": 1}
    return discrete_autoencoder.binary_autoencoder("small", few_pixels(), **sizes, **options)


def bits_drawn_by_others():
    """Whose loss, unlike that of parameters that draw their own, has differences to take."""
    return bits(drawn_by=drawn_like(bits().init, 0.3, seed=3))


def responses():
    small = few_pixels(100)
    sizes = {"width": 3, "batch_size": 32, "epochs": 1}
    return hypernetwork.best_responses("small", small, small.test, **sizes)


SMALL = {
    "switching dynamics": switching,
    "bits": bits_drawn_by_others,
    "relaxed bits": partial(bits, relaxed=True),
    "hypernetwork": responses,
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", SMALL)
def test_derivatives_of_every_example(name):
    assert np.any(check_derivatives(SMALL[name]()))  # all are random


# Switching dynamics


@pytest.mark.usefixtures("float64")
def test_forward_algorithm_sums_over_all_sequences():
    states, times = 3, 4
    rng = np.random.default_rng(0)
    start, transition = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3), 3)
    likelihood = rng.uniform(0.1, 2, (times, states))
    total, sums = 0.0, np.zeros((times, states))  # of p(x₁, …, x_t−1, z_t)
    for z in product(range(states), repeat=times):
        prior = start[z[0]] * np.prod([transition[a, b] for a, b in pairwise(z)])
        of_x = [likelihood[t, z[t]] for t in range(times)]
        total += prior * np.prod(of_x)
        for t in range(times):
            sums[t, z[t]] += prior * np.prod(of_x[:t])
    found = jax.jit(forward_algorithm.forward)(*map(np.log, (start, transition, likelihood)))
    np.testing.assert_allclose(np.exp(found[0]), total, rtol=1e-12)
    expected = sums / sums.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(found[1]), expected, rtol=1e-12)


def likelihood(params, value):
    """−log p of two times, by adding up over both states at each and places on the line."""
    normal = jax.scipy.stats.norm.logpdf
    x = jnp.linspace(-9, 9, 301)
    predicted = SmoothMLP((4,), motions.CHANNELS).apply(params["decoder"], x[:, None])
    first, second = (normal(v, predicted, jnp.exp(params["log_noise"])).sum(axis=1) for v in value)
    total = -jnp.inf
    for before, after in product(range(2), repeat=2):
        of_states = (
            jax.nn.log_softmax(params["start"])[before]
            + jax.nn.log_softmax(params["transition"][before])[after]
        )
        mean = params["matrix"][after, 0, 0] * x + params["shift"][after, 0]
        deviation = jnp.exp(params["log_deviation"][after, 0])
        of_path = normal(x)[:, None] + normal(x[None], mean[:, None], deviation)
        joint = of_states + of_path + first[:, None] + second
        total = jnp.logaddexp(total, jax.nn.logsumexp(joint))
    return -total - 2 * jnp.log(x[1] - x[0])


@pytest.mark.usefixtures("float64")
def test_the_bound_of_switching_dynamics_is_one_of_the_likelihood():
    """E exp(−n ℓ) = p(y) for whatever q, and so E n ℓ ≥ −log p(y)."""
    problem = switching(latent=1, times=2)

    batch = jax.tree.map(lambda leaf: leaf[:1], problem.data)

    @jax.jit
    def both(params):
        value = batch["value"][0]
        many = jax.tree.map(lambda leaf: jnp.repeat(leaf, 40_000, axis=0), batch)
        return value.size * problem.losses(params, many, jax.random.key(0)), likelihood(
            params, value
        )

    losses, exact = both(drawn_like(problem.init, 0.15))
    weights = np.exp(exact - losses)
    assert np.mean(weights) == pytest.approx(1, abs=3 * weights.std() / 200)
    assert weights.std() < 3
    assert np.mean(losses) > exact + 0.01


# Bits


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("drawn_by_others", [False, True])
def test_two_codes_tell_value_gradient_and_hessian_without_bias(drawn_by_others):
    """Exactly, by every pair of codes."""
    codes = jnp.array(list(product([0.0, 1.0], repeat=2)))
    params = {"logits": jnp.array([0.3, -0.8]), "weight": jnp.array([1.5, -0.4])}
    direction = {"logits": jnp.array([0.7, 1.1]), "weight": jnp.array([-0.6, 0.2])}
    drawn_by = jax.tree.map(lambda leaf: 0.5 * leaf, params) if drawn_by_others else params

    def missed(p, z):  # which depends on the parameters of q as well
        return jnp.exp(z @ p["weight"]) + jnp.sin(p["logits"].sum() + z[..., 0])

    def log_q(p, z):
        return jax.nn.log_sigmoid((2 * z - 1) * p["logits"]).sum(axis=-1)

    def of_pair(pair):
        def estimate(p):
            return discrete_autoencoder.leave_one_out(
                missed, log_q, pair, p, drawn_by if drawn_by_others else p
            )

        return derivatives(estimate, params, direction)

    @jax.jit
    def compute():
        pairs = jnp.array(list(product(codes, repeat=2)))
        probability = jnp.exp(log_q(drawn_by, pairs).sum(axis=1))
        means = [probability @ found for found in jax.vmap(of_pair)(pairs)]
        exact = lambda p: jnp.exp(log_q(p, codes)) @ missed(p, codes)  # noqa: E731
        return probability.sum(), means, derivatives(exact, params, direction)

    total, means, exact = compute()
    assert total == pytest.approx(1, rel=1e-12)
    for found, expected in zip(means, exact, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def expected_loss(params, image):
    """The loss of two bits, by adding up over all codes."""
    x = image.ravel() / 16
    logits = SmoothMLP((3,), 2).apply(params["encoder"], x)
    codes = jnp.array(list(product([0.0, 1.0], repeat=2)))
    log_q = jax.nn.log_sigmoid((2 * codes - 1) * logits).sum(axis=1)
    seen = jax.nn.sigmoid(SmoothMLP((3,), 9).apply(params["decoder"], 2 * codes - 1))
    missed = jax.scipy.special.kl_div(x, seen) + jax.scipy.special.kl_div(1 - x, 1 - seen)
    return jnp.exp(log_q) @ (missed.sum(axis=1) + log_q + jnp.log(4))


@pytest.mark.usefixtures("float64")
def test_bits_are_right_in_expectation():
    """Value, gradient and Hessian-vector product of what is drawn by the parameters themselves."""
    problem = bits()

    @jax.jit
    def both(params, direction, batch):
        many = jax.tree.map(lambda leaf: jnp.repeat(leaf, 20_000, axis=0), batch)
        exact = derivatives(lambda p: expected_loss(p, batch["image"]), params, direction)
        return of_examples(problem, params, direction, many), exact

    for estimates, exact in zip(*both(*at_start(problem, 1)), strict=True):
        error = np.linalg.norm(estimates.mean(axis=0) - exact)
        noise = np.sqrt(np.sum(estimates.var(axis=0)) / len(estimates))
        assert error < 3 * noise < 0.1 * np.linalg.norm(exact)


def test_what_is_measured_has_bits_that_are_not_relaxed():
    exact, relaxed = bits(), bits(relaxed=True)

    @jax.jit
    def measured(params):
        return (
            exact.measure(params, exact.test),
            relaxed.measure(params, exact.test),
            jax.vmap(partial(expected_loss, params))(exact.test["image"]),
        )

    found, other, losses = measured(drawn_like(exact.init, 1.0))
    jax.tree.map(np.testing.assert_array_equal, found, other)
    spread = np.std(found["loss"] - losses) / len(losses) ** 0.5
    assert abs(np.mean(found["loss"] - losses)) < 3 * spread < 0.3
    assert np.all((found["code_bits"] > 0) & (found["code_bits"] < 2))


# Hypernetwork


def ignoring(problem, classifier):
    """Parameters of a network that answers every λ with one classifier."""
    params = drawn_like(problem.init, 0.0)
    both = jnp.concatenate([classifier.bias[:, None], classifier.weight], axis=1)
    params["params"]["Dense_1"]["bias"] = 8 * both.ravel()
    return params


def test_a_network_that_ignores_the_weight_decay():
    problem, small = responses(), few_pixels(100)
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(10, 9)), rng.normal(size=10)
    params = ignoring(problem, hypernetwork.Classifier(jnp.array(weight), jnp.array(bias)))
    logits = small.test.image.reshape(-1, 9) / 16 @ weight.T + bias
    of_label = logits[np.arange(100), small.test.label]
    entropy = np.log(np.exp(logits).sum(axis=1)) - of_label
    found = jax.jit(problem.measure)(params, problem.test)
    np.testing.assert_allclose(found["chosen_cross_entropy"], entropy, rtol=1e-4)
    right = logits.argmax(axis=1) == small.test.label
    np.testing.assert_array_equal(found["chosen_accuracy"], right)
    log_low, log_high = np.log(hypernetwork.LAMBDAS)
    mean = (np.exp(log_high) - np.exp(log_low)) / (log_high - log_low)  # of λ over log λ
    penalty = mean * np.sum(weight**2) / 2
    np.testing.assert_allclose(found["loss"] - entropy, np.full(100, penalty), rtol=0.02)
    # So do the keys, on average.
    many = jax.tree.map(lambda leaf: jnp.repeat(leaf[:1], 20_000, axis=0), problem.test)
    drawn = np.asarray(jax.jit(problem.losses)(params, many, jax.random.key(0))) - entropy[0]
    assert drawn.mean() == pytest.approx(penalty, abs=3 * drawn.std() / 20_000**0.5)
    assert drawn.min() < 0.01 * penalty < 3 * penalty < drawn.max()


def test_no_network_is_better_than_the_best_classifiers():
    problem, scale = registry.load("digits-hypernetwork"), 16
    images = data.Images(*(np.asarray(problem.data[name]) for name in ("image", "label")))
    lambdas = np.asarray(hypernetwork.weight_decay(hypernetwork.grid()))
    x, losses = images.image.reshape(len(images.label), -1) / scale, []
    best = hypernetwork.best_classifiers(images, scale, lambdas)
    for strength, *one in zip(lambdas, *best, strict=True):
        weight, bias = (np.asarray(leaf, float) for leaf in one)
        logits = x @ weight.T + bias
        error = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        losses.append(-np.log(error[np.arange(len(x)), images.label]).mean())
        losses[-1] += strength * np.sum(weight**2) / 2
        error[np.arange(len(x)), images.label] -= 1
        np.testing.assert_allclose(error.T @ x / len(x) + strength * weight, 0, atol=1e-4)
    floor = registry.find("digits-hypernetwork").floor
    assert floor < np.mean(losses) < floor + 1e-3


# Training

# What an optimizer's steps reach from where, of what.
LESSONS = {
    "motion-slds": (optax.adam(1e-2), 200, "forecast_error", 0.79, 0.6),
    "digits-discrete": (optax.adam(1e-2), 200, "error", 1.5, 0.7),
    "digits-discrete-relaxed": (optax.adam(1e-2), 200, "error", 1.5, 0.7),
    "digits-hypernetwork": (adameka(), 150, "chosen_cross_entropy", 2.0, 0.55),
}


@pytest.mark.parametrize("name", LESSONS)
def test_problem_is_learned(name):
    if name == "motion-slds":
        pytest.importorskip("aeon")
    problem = registry.load(name)
    tx, steps, metric, start, reached = LESSONS[name]
    found, _ = learn(problem, tx, steps)
    before, after = found[metric]
    assert after < reached < start < before
    assert found["loss"][1] < found["loss"][0]
    if name == "motion-slds":  # which the forecasts of no change at all are
        assert after < 0.75 * found["persistence_error"][1]


@pytest.mark.parametrize("make", [bits, responses, switching])
def test_picture(make, tmp_path):
    problem = make()
    problem.plot(drawn_like(problem.init, 0.3), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


# Motions


def test_motions():
    pytest.importorskip("aeon")
    train, test = motions.basic_motions()
    for part in (train, test):
        assert part.value.shape == (160, 25, 6)
        np.testing.assert_array_equal(np.bincount(part.label), np.full(4, 40))
        # Who stands moves least.
        spread = [part.value[part.label == label].std() for label in range(4)]
        assert motions.ACTIVITIES[int(np.argmin(spread))] == "Standing"
    np.testing.assert_allclose(train.value.mean(axis=(0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(train.value.std(axis=(0, 1)), 1, rtol=1e-5)


def write_motions(folder, monkeypatch, change=lambda lines: lines):
    """In place of aeon a package with files of its form, whose numbers tell where they are from."""
    monkeypatch.setitem(sys.modules, "aeon", SimpleNamespace(__path__=[str(folder)]))
    files = folder / "datasets" / "data" / "BasicMotions"
    files.mkdir(parents=True)
    for part in ("TRAIN", "TEST"):
        lines = ["#about", "@data"]
        for row in range(40):
            places = [np.sinh(row + 0.001 * (-1) ** c * np.arange(100)) for c in range(6)]
            channels = [",".join(map(str, one)) for one in places]
            lines.append(":".join([*channels, motions.ACTIVITIES[row % 4]]))
        text = "\n".join(change(lines) if part == "TEST" else lines)
        (files / f"BasicMotions_{part}.ts").write_text(text)
    return files


def test_motions_are_read_by_time_and_channel(tmp_path, monkeypatch):
    write_motions(tmp_path, monkeypatch)
    for part in motions.basic_motions():
        first = part.value[:, 0, 0]  # which rises with the row, and within it by less than 0.1
        row = np.floor((first - first.min()) * 39.075 / np.ptp(first) + 0.01).astype(int)
        np.testing.assert_array_equal(np.bincount(row), np.full(40, 4))  # pieces of a recording
        np.testing.assert_array_equal(part.label, row % 4)
        rises = np.broadcast_to(np.arange(6) % 2 == 0, (160, 24, 6))
        np.testing.assert_array_equal(np.diff(part.value, axis=1) > 0, rises)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda lines: lines[:-1], r"40 recordings of .*found numbers of shape \(39, 6, 100\)"),
        (lambda lines: [*lines[:-1], "1,2:Walking"], "6 channels of 100 numbers"),
        (lambda lines: [*lines[:-1], lines[-1].replace(",", ",?", 1)], "6 channels of 100 numbers"),
        (lambda lines: [*lines[:-1], lines[-1] + "s"], "an activity"),
        (
            lambda lines: [*lines[:-1], "inf" + lines[-1][lines[-1].index(",") :]],
            "23999 of them finite",
        ),
    ],
)
def test_damaged_motions(change, expected, tmp_path, monkeypatch):
    write_motions(tmp_path, monkeypatch, change)
    with pytest.raises(UsageError, match=f"expected .*{expected}.*--force-reinstall --no-deps"):
        motions.basic_motions()


def test_motions_that_are_not_there(tmp_path, monkeypatch):
    (write_motions(tmp_path, monkeypatch) / "BasicMotions_TRAIN.ts").unlink()
    with pytest.raises(UsageError, match=r"a file of motions in .*_TRAIN\.ts, found none"):
        motions.basic_motions()
    monkeypatch.setitem(sys.modules, "aeon", None)
    with pytest.raises(UsageError, match="pip install --no-deps aeon"):
        registry.load("motion-slds")
