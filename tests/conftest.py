import contextlib
import gc
import os
import subprocess
import sys

import jax
import pytest

# The suite is a thousand small programs that run for a moment. XLA's older kernel emitters, without
# optimization, compile them in half the time, and without XLA's checks of its own passes in a bit
# less; what its defaults make of them, the README's example and the benchmark's smoke profile show.
_QUICK = (
    "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0 "
    "--xla_disable_hlo_passes=hlo-verifier"
)


def pytest_configure(config):
    """Set the flags for this process, before jax has begun, and for all that it starts."""
    if hasattr(config, "workerinput") or "XLA_FLAGS" in os.environ:
        return
    # A jax that does not know a flag ends the process.
    begin = [sys.executable, "-c", "import jax; jax.devices()"]
    known = subprocess.run(begin, env={**os.environ, "XLA_FLAGS": _QUICK}, capture_output=True)
    if known.returncode == 0:
        os.environ["XLA_FLAGS"] = _QUICK


def pytest_collection_finish():
    """Look for garbage rarely: tracing makes many objects, and next to none in cycles."""
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)


@contextlib.contextmanager
def _float64():
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


@pytest.fixture
def float64():
    """Run the test in double precision, where oracles are compared to rounding."""
    with _float64():
        yield
