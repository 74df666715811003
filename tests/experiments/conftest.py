import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from click.testing import CliRunner
from mekax.experiments import cli, results
from mekax.experiments.problem import Problem


@pytest.fixture(autouse=True)
def _own_places(tmp_path, monkeypatch):
    """No test reads or writes the user's cache, data or results."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def parabola():
    """Losses ½ (w − x)² with x = ±1 plus noise from the key: any rate above 2 diverges."""

    def loss(params, example, key):
        noise = 0.1 * jax.random.normal(key)
        return 0.5 * (params["w"] - example["x"]) ** 2 + noise * params["w"]

    def losses(params, batch, key):
        keys = jax.random.split(key, batch["x"].shape[0])
        return jax.vmap(loss, (None, 0, 0))(params, batch, keys)

    return Problem(
        name="parabola",
        init=lambda key: {"w": 2.0 + jax.random.uniform(key)},
        loss=loss,
        losses=losses,
        measure=lambda params, batch: {"loss": 0.5 * (params["w"] - batch["x"]) ** 2},
        data={"x": jnp.resize(jnp.array([1.0, -1.0]), 24)},
        test={"x": jnp.array([1.0, -1.0])},
        batch_size=4,
        epochs=2,
    )


@pytest.fixture
def mekax():
    """Run the command line in this process."""

    def run(*words):
        return CliRunner().invoke(cli.main, list(words))

    return run


@pytest.fixture(scope="session")
def comparison(tmp_path_factory):
    """One small comparison, which many tests look at."""
    out = tmp_path_factory.mktemp("comparison") / "out"
    words = "compare digits-logistic --optimizers meka adam:1e-3 sgd --epochs 2 --seeds 2 --out"
    result = CliRunner().invoke(cli.main, [*words.split(), str(out)])
    assert result.exit_code == 0, result.output
    content = json.loads((out / "results.json").read_text(), parse_constant=pytest.fail)
    jobs, damaged = results.jobs(out)
    assert not damaged
    return SimpleNamespace(out=out, text=result.output, content=content, jobs=jobs)


@pytest.fixture
def prepare():
    """Write what looks like a prepared dataset; its examples cannot be decoded."""

    def write(root, version="3.0.1", file_format="array_record", examples=(3, 2), size=1 << 16):
        folder = root / "mnist" / version
        folder.mkdir(parents=True)
        splits = [
            {"name": name, "shardLengths": [str(count)], "numBytes": "1"}
            for name, count in zip(("train", "test"), examples, strict=True)
        ]
        info = {"name": "mnist", "version": version, "fileFormat": file_format, "splits": splits}
        (folder / "dataset_info.json").write_text(json.dumps(info))
        for split in ("train", "test"):
            file = folder / f"mnist-{split}.{file_format}-00000-of-00001"
            file.write_bytes(b"x" * size)
        return folder

    return write
