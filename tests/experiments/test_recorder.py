import json
import os
import pickle
import resource
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mekax.experiments import Recorder
from mekax.experiments.errors import UsageError
from mekax.experiments.view.recording import HEADER
from mekax.experiments.view.sources import read
from mekax.optimizers import adameka, metrics


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs" / "mine.jsonl"


def record(path, *steps, **scalars):
    with Recorder(path) as recorder:
        for step in steps:
            recorder.write(step, {"loss": 10.0 - step}, **scalars)


def test_every_kind_of_number_comes_back(path):
    values = {
        "int": 3,
        "large": 2**62,
        "float": 1 / 3,
        "bool": True,
        "numpy": np.float32(0.1),
        "numpy_int": np.int64(-5),
        "array": np.array(2.5),
        "jax": jnp.float32(1e-30),
        "jax_int": jnp.int32(2**30 + 1),
        "jax_bool": jnp.bool_(True),
        "half": jnp.bfloat16(0.5),
        "nan": jnp.float32(jnp.nan),
        "inf": np.inf,
        "minus": jnp.float32(-jnp.inf),
    }
    with Recorder(path) as recorder:
        recorder.write(0, values)
    found = read(path).series
    assert set(found) == set(values)
    for name, value in values.items():
        dtype = np.float32 if name in ("float", "jax", "numpy") else np.float64
        expected = np.asarray(value).astype(dtype)
        np.testing.assert_array_equal(found[name].values.astype(dtype), expected.reshape(1))


def test_lines_are_strict_json(path):
    record(path, 1, 2, bad=float("nan"))
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


def test_records_a_training_whose_state_is_donated(path):
    tx = adameka()
    params = jnp.array([2.0, -1.0])

    def step(params, state):
        updates, state = tx.update(2 * params, state, params, value_fn=lambda w: jnp.sum(w**2))
        return optax.apply_updates(params, updates), state

    step = jax.jit(step, donate_argnums=(0, 1))
    state = tx.init(params)
    expected = []
    with Recorder(path) as recorder:
        for count in range(80):
            params, state = step(params, state)
            recorder.write(count, metrics(state))
            expected.append(float(metrics(state)["step_size"]))
    series = read(path).series["step_size"]
    assert series.index.tolist() == list(range(80))
    np.testing.assert_allclose(series.values, expected, rtol=1e-7)


def test_does_not_wait_for_the_device(path):
    @jax.jit
    def slow(x):
        return jax.lax.fori_loop(0, 100, lambda _, y: jnp.tanh(y @ y), x).sum()

    matrix = jnp.zeros((500, 500))
    slow(matrix).block_until_ready()  # compiled
    with Recorder(path) as recorder:
        recorder.write(0, slow=jnp.float32(1.0))  # compiled
        recorder.flush()
        recorder.write(1, slow=slow(matrix))
        assert len(path.read_text().splitlines()) == 2  # not there yet, and the call came back
    assert read(path).series["slow"].values.tolist() == [1.0, 0.0]


def test_a_scan_is_recorded_at_once(path):
    with Recorder(path) as recorder:
        recorder.extend(jnp.arange(1, 4), {"loss": jnp.array([3.0, 2.0, jnp.nan])})
    assert path.read_text().count("\n") == 4
    np.testing.assert_array_equal(read(path).series["loss"].values, [3, 2, np.nan])


def test_continued_after_a_torn_line(path):
    record(path, 1, 2, 3)
    whole = path.read_bytes()
    for cut in range(whole.rindex(b"\n", 0, -1) + 1, len(whole)):
        path.write_bytes(whole[:cut])
        assert read(path).series["loss"].index.tolist() == [1, 2]
        record(path, 3)
        assert path.read_bytes() == whole
        assert read(path).note == ""


@pytest.mark.parametrize("tail", [b"\0" * 100, b"\0" * 10 + b"\n", b'{"step": 4, "lo\n'])
def test_continued_after_garbage_at_the_end(path, tail):
    record(path, 1, 2)
    with path.open("ab") as file:
        file.write(tail)
    assert "cut off" in read(path).note
    record(path, 3)
    assert read(path).series["loss"].index.tolist() == [1, 2, 3]


@pytest.mark.parametrize("cut", [0, 1, 10, len(HEADER)])
def test_continued_after_a_torn_header(path, cut):
    path.parent.mkdir()
    path.write_text(HEADER[:cut])
    record(path, 1)
    assert read(path).series["loss"].index.tolist() == [1]


def test_a_long_last_line_is_found(path):
    many = {f"scalar {index}": float(index) for index in range(2000)}
    with Recorder(path) as recorder:
        recorder.write(1, many)
    record(path, 2)
    assert len(read(path).series) == 2001


def test_steps_repeated_from_a_checkpoint_replace_those_before(path):
    record(path, 1, 2, 3, 4, only_before=1.0)
    with Recorder(path) as recorder:
        recorder.write(3, loss=-1.0)
    series = read(path).series
    assert series["loss"].index.tolist() == [1, 2, 3]
    assert series["loss"].values.tolist() == [9, 8, -1]
    assert series["only_before"].index.tolist() == [1, 2]
    assert len(path.read_text().splitlines()) == 6  # nothing was rewritten


def test_one_step_may_be_recorded_in_parts(path):
    with Recorder(path) as recorder:
        recorder.write(5, loss=1.0)
        recorder.write(5, accuracy=0.5)
    series = read(path).series
    assert series["loss"].index.tolist() == series["accuracy"].index.tolist() == [5]


def test_a_killed_program_loses_nothing_that_was_written(path):
    code = f"""
import os
from mekax.experiments import Recorder
recorder = Recorder({str(path)!r})
for step in range(100):
    recorder.write(step, loss=1.0 / (step + 1))
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert read(path).series["loss"].size == 100


def test_a_program_that_does_not_close_loses_nothing(path):
    code = f"""
import jax, jax.numpy as jnp
from mekax.experiments import Recorder
recorder = Recorder({str(path)!r})
recorder.write(1, loss=jax.jit(lambda x: jnp.sin(x).sum() * 0)(jnp.ones((3000, 3000))))
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert read(path).series["loss"].values.tolist() == [0.0]


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (jnp.ones(3), TypeError, r"'x' to be a real scalar, got an array of shape \(3,\)"),
        (np.ones((1, 1)), TypeError, "shape"),
        ("1.0", TypeError, "got str"),
        (None, TypeError, "got NoneType"),
        ([1.0], TypeError, "got list"),
        (1j, TypeError, "complex"),
        (jnp.complex64(1j), TypeError, "complex64"),
        (np.datetime64("2020-01-01"), TypeError, "datetime64"),
        (jax.random.key(0), TypeError, "key<"),
        (10**400, OverflowError, "large"),
    ],
)
def test_what_is_no_scalar_is_refused(path, value, error, words):
    with Recorder(path) as recorder:
        with pytest.raises(error, match=words):
            recorder.write(1, x=value)
        recorder.write(1, x=1.0)
    assert read(path).series["x"].values.tolist() == [1.0]


def test_traced_and_donated_values_are_refused(path):
    with Recorder(path) as recorder:
        with pytest.raises(TypeError, match=r"traced by jax\.jit"):
            jax.jit(lambda x: recorder.write(1, x=x))(1.0)
        gone = jnp.float32(1)
        gone.delete()
        with pytest.raises(ValueError, match="donated"):
            recorder.write(1, x=gone)


@pytest.mark.parametrize(
    ("step", "error"), [(1.0, TypeError), ("1", TypeError), (-1, ValueError), (3, ValueError)]
)
def test_bad_steps_are_refused(path, step, error):
    with Recorder(path) as recorder:
        recorder.write(4, x=1)
        with pytest.raises(error, match="step"):
            recorder.write(step, x=1)


def test_bad_names_are_refused(path):
    with Recorder(path) as recorder:
        with pytest.raises(ValueError, match="'loss' again"):
            recorder.write(1, {"loss": 1.0}, loss=2.0)
        with pytest.raises(ValueError, match="'step' again"):
            recorder.write(1, {"step": 1.0})
        with pytest.raises(TypeError, match="strings"):
            recorder.write(1, {3: 1.0})
        with pytest.raises(ValueError, match="one value for each step"):
            recorder.extend([1, 2], {"loss": [1.0]})


def test_bad_places_are_refused(path, tmp_path):
    with pytest.raises(IsADirectoryError, match=r"run\.jsonl"):
        Recorder(tmp_path)
    program = tmp_path / "train.py"
    program.write_text("print('hello')\n")
    with pytest.raises(ValueError, match="left as it is"):
        Recorder(program)
    assert program.read_text() == "print('hello')\n"
    with Recorder(path), pytest.raises(BlockingIOError, match="in use"):
        Recorder(path)
    Recorder(path).close()


def test_a_closed_recorder_says_so(path):
    recorder = Recorder(path)
    recorder.close()
    recorder.close()
    with pytest.raises(ValueError, match="closed"):
        recorder.write(1, x=1)


def test_a_full_disk_leaves_whole_lines(path):
    recorder = Recorder(path)
    recorder.write(1, x=1)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 9, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            recorder.write(2, x=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    recorder.write(3, x=1)  # and what could not be written is not lost
    recorder.close()
    assert read(path).series["x"].index.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "line",
    [
        b"garbage",
        b'{"step": -1}',
        b'{"step": 1.5}',
        b'{"step": true}',
        b'{"x": 1}',
        b'{"step": 2, "x": "big"}',
        b'{"step": 2, "x": [1]}',
        b'{"step": 2, "x": 1' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b"\xff\xfe",
        b"",
        pickle.dumps(os.getcwd).replace(b"\n", b""),
    ],
    ids=lambda line: repr(line[:20]),
)
def test_damage_before_the_end_is_left_out_and_named(path, line):
    record(path, 1)
    whole = path.read_bytes()
    damaged = whole + line + b"\n" + b'{"step": 3, "x": 1}\n'
    path.write_bytes(damaged)
    recording = read(path)
    assert recording.note == "Damaged lines are left out: 3."
    assert recording.series["loss"].index.tolist() == [1]
    assert recording.series["x"].index.tolist() == [3]
    assert path.read_bytes() == damaged


def test_much_damage_is_counted(path):
    record(path, 1)
    with path.open("ab") as file:
        file.write(b"garbage\n" * 9 + b'{"step": 2, "loss": 5}\n{"st')
    assert read(path).note == (
        "Damaged lines are left out: 3, 4, 5, 6, 7, … (9 in all). "
        "The last line was cut off and is left out."
    )
    assert read(path).series["loss"].values.tolist() == [9, 5]


@pytest.mark.parametrize("content", [b"", b"{}\n", b"\x80\x04K\x01.", b"step,loss\n1,2\n"])
def test_what_is_no_recording_is_refused(tmp_path, content):
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="to be a recording"):
        read(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UsageError, match="cannot be read"):
            read(path)


HOLD = """
import sys
from mekax.experiments import Recorder
with Recorder(sys.argv[1]) as recorder:
    recorder.write(1, x=1)
    print("written", flush=True)
    sys.stdin.read()
"""


def test_read_while_another_process_writes(path):
    words = [sys.executable, "-c", HOLD, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, text=True, **pipes) as process:
        assert process.stdout.readline() == "written\n"
        assert read(path).series["x"].index.tolist() == [1]
        with pytest.raises(BlockingIOError, match="in use"):
            Recorder(path)
