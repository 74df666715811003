import os
from pathlib import Path

import numpy as np
import pytest
from mekax.experiments import data
from mekax.experiments.errors import UsageError

REAL = Path(__file__).resolve().parents[3] / "shared" / "tensorflow_datasets"


def arrays(train=3, test=2, fill=0):
    return {
        "train_image": np.full((train, 2, 2, 1), fill, np.uint8),
        "train_label": np.zeros(train, np.int32),
        "test_image": np.full((test, 2, 2, 1), fill, np.uint8),
        "test_label": np.zeros(test, np.int32),
    }


@pytest.fixture
def decoded(monkeypatch):
    """Replace decoding; returns the list of what has been decoded."""
    calls = []

    def decode(source, report):
        calls.append(source.folder)
        return arrays(fill=len(calls))

    monkeypatch.setattr(data, "_decode", decode)
    return calls


def test_digits_split_is_fixed_and_stratified():
    first, second = data.digits(), data.digits()
    np.testing.assert_array_equal(first.train.image, second.train.image)
    total = np.bincount(first.train.label) + np.bincount(first.test.label)
    np.testing.assert_allclose(np.bincount(first.test.label) / total, 0.2, atol=0.01)
    assert len(first.train.label) + len(first.test.label) == 1797
    assert first.train.image.max() == first.train.image.dtype.type(first.scale[0])


def test_split_parts_are_disjoint():
    label = np.repeat(np.arange(3), [5, 10, 20])
    first, second = data.stratified_split(label, 0.2, np.random.default_rng(0))
    assert sorted([*first, *second]) == list(range(35))
    assert np.bincount(label[second]).tolist() == [1, 2, 4]


def test_pixel_statistics():
    image = np.random.default_rng(0).integers(0, 256, (7, 5, 4, 3)).astype(np.uint8)
    offset, scale = data.pixel_statistics(image)
    np.testing.assert_allclose(offset, image.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(scale, image.std(axis=(0, 1, 2)), rtol=1e-6)


def test_missing_data_says_where_and_how(tmp_path):
    with pytest.raises(UsageError) as caught:
        data.prepared("mnist", tmp_path)
    message = str(caught.value)
    for part in (f"{tmp_path}/mnist/<version>/dataset_info.json", "--data-dir", "tfds.data_source"):
        assert part in message


def test_places_in_order(tmp_path, monkeypatch):
    assert data.locate(None)[0] == Path.home() / "tensorflow_datasets"
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "env"))
    assert data.locate(None)[0] == tmp_path / "env"
    assert data.locate(tmp_path / "given")[0] == tmp_path / "given"


def test_newest_version_by_number(tmp_path, prepare):
    for version in ("3.9.0", "3.10.0", "3.0.1"):
        prepare(tmp_path, version)
    found = data.find("mnist", tmp_path)
    assert found.folder.name == "3.10.0"
    assert found.examples == {"train": 3, "test": 2}


def test_wrong_file_format(tmp_path, prepare):
    prepare(tmp_path, file_format="tfrecord")
    with pytest.raises(UsageError, match="array_record"):
        data.find("mnist", tmp_path)


def test_unreadable_description(tmp_path, prepare):
    (prepare(tmp_path) / "dataset_info.json").write_text('{"name": "mni')
    with pytest.raises(UsageError, match=r"dataset_info\.json cannot be understood"):
        data.find("mnist", tmp_path)


def test_truncated_and_missing_files(tmp_path, prepare):
    folder = prepare(tmp_path)
    file = folder / "mnist-test.array_record-00000-of-00001"
    file.write_bytes(b"x" * 100)
    with pytest.raises(UsageError, match="truncated"):
        data.find("mnist", tmp_path)
    file.unlink()
    with pytest.raises(UsageError, match="missing"):
        data.find("mnist", tmp_path)


def test_damaged_examples(tmp_path, prepare):
    prepare(tmp_path, size=1 << 17)
    with pytest.raises(UsageError, match="train examples cannot be read"):
        data.prepared("mnist", tmp_path)


def test_decoded_once(tmp_path, prepare, decoded):
    prepare(tmp_path)
    first, second = data.prepared("mnist", tmp_path), data.prepared("mnist", tmp_path)
    assert len(decoded) == 1
    np.testing.assert_array_equal(first.train.image, second.train.image)


def test_changed_source_is_decoded_again(tmp_path, prepare, decoded):
    folder = prepare(tmp_path)
    data.prepared("mnist", tmp_path)
    os.utime(folder / "mnist-train.array_record-00000-of-00001", (1, 1))
    assert data.prepared("mnist", tmp_path).train.image.max() == 2
    assert len(decoded) == 2
    assert len(list((tmp_path / "cache" / "mekax").iterdir())) == 1


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "other arrays", "other count"])
def test_damaged_cache_is_decoded_again(tmp_path, prepare, decoded, damage):
    prepare(tmp_path)
    data.prepared("mnist", tmp_path)
    file = data.cache_file(data.find("mnist", tmp_path))
    whole = file.read_bytes()
    if damage == "other arrays":
        np.savez(file, something=np.zeros(3))
    elif damage == "other count":
        np.savez(file, **arrays(train=1))
    else:
        file.write_bytes({"truncated": whole[:-100], "garbage": b"x" * 99, "empty": b""}[damage])
    assert data.prepared("mnist", tmp_path).train.image.max() == 2
    assert data.prepared("mnist", tmp_path).train.image.max() == 2
    assert len(decoded) == 2


def test_works_without_a_cache(tmp_path, prepare, decoded, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    prepare(tmp_path)
    said = []
    data.prepared("mnist", tmp_path, said.append)
    assert any("cannot write" in line for line in said)


@pytest.mark.skipif(not REAL.is_dir(), reason="prepared datasets are not there")
@pytest.mark.parametrize(("name", "shape"), [("mnist", (28, 28, 1)), ("cifar10", (32, 32, 3))])
def test_real_examples(name, shape):
    source = data.find(name, REAL)
    assert source.examples["test"] == 10_000
    elements = next(data.decoded(source, "test", 50))
    assert {element["image"].shape for element in elements} == {shape}
    assert {element["image"].dtype for element in elements} == {np.dtype(np.uint8)}
    assert {int(element["label"]) for element in elements} == set(range(10))
