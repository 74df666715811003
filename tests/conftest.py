import contextlib
import functools

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


# The older kernel emitters of XLA for the CPU, without optimization, compile programs of many small
# kernels, such as ours, in less than half the time. Most tests run what the defaults make of them.
_QUICK = {"xla_cpu_use_fusion_emitters": False, "xla_backend_optimization_level": 0}


@pytest.fixture(scope="session")
def quick_jit():
    """`jax.jit` that compiles fast, where compiling takes longer than all the rest."""
    try:
        jax.jit(lambda: 0, compiler_options=_QUICK)()
    except jax.errors.JaxRuntimeError:  # other versions and devices do without
        return jax.jit
    return functools.partial(jax.jit, compiler_options=_QUICK)
