import jax
import pytest


@pytest.fixture(autouse=True)
def _compile_fast():
    """Compile without most optimizations: the loops here make few steps."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
