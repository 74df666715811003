"""Digits by networks of special layers, and by two players: what is special to each problem."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.experiments import data, registry
from mekax.experiments.problems import generative_adversarial as gan
from mekax.experiments.problems import group_equivariance as equivariance
from mekax.experiments.problems import parabolic_network as parabolic
from mekax.experiments.problems import spatial_transformer as transformer
from mekax.experiments.problems.classification import classification
from mekax.optimizers import adameka
from problem_checks import check_derivatives, drawn_like, learn
from scipy import ndimage

OPTIONS = {"batch_size": 32, "epochs": 1}


def game(against=None):
    options = {"latent": 2, "width": 4, "against": against, **OPTIONS}
    return gan.adversarial("small", data.digits(), **options)


def opponents():
    return drawn_like(game().init, 0.2, seed=3)


def moved():
    module = transformer.SpatialTransformer(4, 6, 10, grid=3)
    return classification("small", transformer.moved_digits(), module, **OPTIONS)


def turned():
    module = equivariance.EquivariantCNN((2, 3), 10)
    return classification("small", equivariance.turned_digits(), module, **OPTIONS)


def diffused():
    return classification("small", data.digits(), parabolic.ParabolicCNN(3, 2, 10), **OPTIONS)


SMALL = {
    "spatial transformer": moved,
    "equivariant network": turned,
    "parabolic network": diffused,
    "against others": lambda: game(opponents()),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", SMALL)
def test_derivatives_of_every_example(name):
    assert np.any(check_derivatives(SMALL[name]())) == (name == "against others")


# What so many steps of which optimizer reach from where.
LESSONS = {
    "digits-transformer": (optax.adam(1e-2), 150, "accuracy", 0.15, 0.2),
    "digits-equivariant": (optax.adam(1e-2), 60, "accuracy", 0.2, 0.6),
    "digits-pde": (adameka(), 40, "accuracy", 0.2, 0.75),
    "digits-gan": (optax.adam(1e-3), 200, "loss", 4.5, 1.8),
}


@pytest.mark.parametrize("name", LESSONS)
def test_problem_is_learned(name, tmp_path):
    tx, steps, metric, before, after = LESSONS[name]
    problem = registry.load(name)
    found, params = learn(problem, tx, steps)
    at_first, at_last = found[metric]
    if metric == "accuracy":
        assert at_first < before < after < at_last
    else:
        assert at_last < after < before < at_first
    problem.plot(params, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


# Spatial transformer


def test_interpolation_is_by_cubic_splines():
    rng = np.random.default_rng(0)
    image, places = rng.normal(size=(7, 9)), rng.uniform(-3, 11, (50, 2))
    expected = ndimage.map_coordinates(np.pad(image, 9), places.T + 9, order=3, prefilter=False)
    found = jax.jit(transformer.interpolate)(*map(jnp.float32, (image, places)))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_grid_that_has_not_moved_spans_the_middle():
    module = transformer.SpatialTransformer(4, 6, 10, grid=3)
    x = np.random.default_rng(0).normal(size=(2, 10, 20, 1)).astype(np.float32)
    look = lambda x: module.apply(module.init(jax.random.key(1), x), x, method="look")  # noqa: E731
    places, _ = jax.jit(look)(x)
    rows, columns = 4.5 + np.array([-2, 0, 2]), 9.5 + np.array([-4, 0, 4])
    expected = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(9, 2)
    np.testing.assert_allclose(places, [expected, expected], atol=1e-5)


def test_digits_are_moved_within_their_canvas():
    images = data.digits().test
    canvas = transformer.moved(images, 5, 16)
    np.testing.assert_array_equal(canvas.label, images.label)
    # Area and ink change with the square of the scale.
    ratio = canvas.image.sum(axis=(1, 2, 3)) / (15.0 * images.image.sum(axis=(1, 2, 3)))
    assert 0.35 < ratio.min() < 0.6 < 1.2 < ratio.max() < 1.6
    weight = canvas.image[..., 0] / canvas.image.sum(axis=(1, 2, 3))[:, None, None]
    for axis in (1, 2):
        center = np.sum(weight.sum(axis=axis) * np.arange(16), axis=1)
        assert 3 < center.min() < 6 < 9 < center.max() < 12
    again = transformer.moved(images, 5, 16)
    np.testing.assert_array_equal(canvas.image, again.image)


# Equivariance


@pytest.mark.usefixtures("float64")
def test_features_turn_with_the_image_and_logits_stay():
    module = equivariance.EquivariantCNN((2, 3), 10)
    x = np.random.default_rng(0).normal(size=(3, 8, 8, 1))

    params = drawn_like(lambda key: module.init(key, x), 0.3)

    @jax.jit
    def run(x):
        return module.apply(params, x, method="features"), module.apply(params, x)

    features, logits = run(x)
    assert features.shape == (3, 2, 2, 4, 3)
    for times in range(1, 4):
        found, same = run(np.rot90(x, times, (1, 2)))
        expected = equivariance.turn(features, times, (1, 2), 3)
        np.testing.assert_allclose(found, expected, atol=1e-12)
        np.testing.assert_allclose(same, logits, atol=1e-12)
        assert np.abs(found - features).max() > 0.01
    _, flipped = run(x[:, ::-1])  # no turn
    assert np.abs(flipped - logits).max() > 1e-3


def test_group_convolution_is_the_sum_that_defines_it():
    f = jax.random.normal(jax.random.key(0), (1, 4, 4, 4, 2))
    module = equivariance.GroupConvolution(1)
    params, found = jax.jit(module.init_with_output)(jax.random.key(1), f)[::-1]
    found = np.asarray(found)[0, ..., 0]
    f, psi = np.asarray(f)[0], np.asarray(params["params"]["filter"])[..., 0]
    for r in range(4):
        for place in np.ndindex(2, 2):
            total = 0.0
            for offset in np.ndindex(3, 3):
                back = complex(offset[0] - 1, offset[1] - 1) * (-1j) ** r  # row + i column
                at = round(back.real) + 1, round(back.imag) + 1
                for s in range(4):
                    y = place[0] + offset[0], place[1] + offset[1]
                    total += f[y][s] @ psi[at][(s - r) % 4]
            assert found[place][r] == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize("shape", [(7, 7), (8, 6), (2, 2)])
def test_strides_that_break_the_symmetry_are_refused(shape):
    module = equivariance.GroupConvolution(2, kernel=4, stride=2)
    with pytest.raises(ValueError, match="multiple of the stride"):
        jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *shape, 1, 1)))


def test_every_turn_is_drawn():
    images = data.digits().test
    found = equivariance.turned(images, 5)
    times = [
        [np.array_equal(np.rot90(image, k), turned) for k in range(4)]
        for image, turned in zip(images.image, found.image, strict=True)
    ]
    assert np.all(np.sum(times, axis=1) == 1)
    assert np.all(np.sum(times, axis=0) > 60)


# Parabolic network


def as_matrix(kernel, size):
    """Of the convolution of states of so many rows and columns."""
    basis = np.eye(size**2 * kernel.shape[2]).reshape(-1, size, size, kernel.shape[2])
    return np.asarray(jax.jit(parabolic.convolve)(basis, kernel)).reshape(len(basis), -1).T


def test_adjoint_is_the_transpose():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 3))
    found = as_matrix(parabolic.adjoint(kernel), 3)
    np.testing.assert_allclose(found, as_matrix(kernel, 3).T, atol=1e-6)


@pytest.mark.usefixtures("float64")
def test_no_distance_grows_while_steps_are_short():
    """Also along what K stretches most, which is the first to grow."""
    size, h, rng = 4, 0.5, np.random.default_rng(0)
    kernel, bias = rng.normal(size=(3, 3, 2, 2)), 0.1 * rng.normal(size=2)
    *_, rows = np.linalg.svd(as_matrix(kernel, size))
    pair = 1e-3 * np.stack([rows[0], -rows[0]])
    before = np.concatenate([3 * rng.normal(size=(200, rows.shape[1])), pair])
    step = jax.jit(lambda y, kernel: parabolic.parabolic_step(y, kernel, bias, h))

    def distances(y):
        flat = np.asarray(y).reshape(len(y), -1)
        return np.linalg.norm(flat[::2] - flat[1::2], axis=1)

    for bound, stable in ((1.9, True), (4.0, False)):
        scaled = kernel * np.sqrt(bound / h) / np.linalg.norm(as_matrix(kernel, size), 2)
        after = step(before.reshape(-1, size, size, 2), scaled)
        assert np.all(distances(after) < distances(before)) == stable


def test_a_network_begins_stable():
    problem = registry.load("digits-pde")
    kernels = jax.jit(problem.init)(jax.random.key(0))["params"]["kernels"]
    norms = np.array([np.linalg.norm(as_matrix(kernel, 4), 2) for kernel in kernels])
    assert np.all(parabolic.ParabolicCNN.h * norms**2 < 2)


# Two players


@pytest.mark.usefixtures("float64")
def test_each_player_follows_its_loss_against_the_other_as_it_is():
    problem, eps, key = game(), 1e-5, jax.random.key(4)
    example = jax.tree.map(lambda leaf: leaf[0], problem.data)

    @jax.jit
    def compute(params, direction):
        fixed, zeros = game(against=params), jax.tree.map(jnp.zeros_like, direction)
        grad = jax.grad(problem.loss)(params, example, key)
        players = [{**zeros, player: direction[player]} for player in params]
        value = lambda p: fixed.loss(p, example, key)  # noqa: E731
        around = [optax.tree.add_scale(params, by, only) for only in players for by in (eps, -eps)]
        values = jax.lax.map(value, jax.tree.map(lambda *p: jnp.stack(p), *around))
        found = jnp.stack([optax.tree.vdot(grad, only) for only in players])
        return found, (values[::2] - values[1::2]) / (2 * eps)

    found, expected = compute(drawn_like(problem.init, 0.3), drawn_like(problem.init, 1.0, seed=1))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_energy_distance_averages_over_examples():
    problem = game()
    params = opponents()
    found = jax.jit(problem.measure)(params, problem.test)["loss"].mean()
    real = 2 * np.asarray(problem.test["image"]).reshape(-1, 64) / 16 - 1
    far = np.linalg.norm(real[:, None] - real[None], axis=-1).sum() / (len(real) * (len(real) - 1))
    np.testing.assert_allclose(problem.test["to_others"].mean(), far, rtol=1e-5)
    # Where the generator's last layer is 0, all images are gray.
    still = jax.tree.map(jnp.zeros_like, params)
    expected = 2 * np.linalg.norm(real, axis=1).mean() - far
    assert jax.jit(problem.measure)(still, problem.test)["loss"].mean() == pytest.approx(
        expected, rel=1e-4
    )
    assert found != pytest.approx(expected, rel=1e-3)
