import contextlib

import jax
import pytest


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
