import jax.numpy as jnp
import numpy as np
import pytest
from mekax.curvature import LineBelief
from mekax.optimizers import improvement_threshold
from mekax.optimizers._acquisition import resolve_acquisition
from mekax.optimizers._maximize import maximize_on_interval


@pytest.mark.parametrize("peak", [0.001, 0.1, 0.4321, 0.999])
def test_finds_a_peak(peak):
    x = maximize_on_interval(lambda x: -jnp.square(jnp.log(x / peak)), jnp.asarray(1.0))
    assert float(x) == pytest.approx(peak, rel=1e-3)


def test_increasing_utilities_end_exactly_at_the_bound():
    for bound in (1e-20, 0.3, 7e11):
        assert float(maximize_on_interval(lambda x: x, jnp.asarray(bound))) == np.float32(bound)


def test_empty_interval_and_nan_are_survived():
    assert float(maximize_on_interval(lambda x: x, jnp.asarray(0.0))) == 0.0
    x = maximize_on_interval(lambda x: jnp.where(x > 0.5, jnp.nan, x), jnp.asarray(1.0))
    assert float(x) == pytest.approx(0.5, rel=0.05)


def chosen(name, a, h, p, q, s, bound):
    belief = LineBelief(*map(jnp.asarray, (0.0, s, -a, p, h, q, 0.0)))
    utility = resolve_acquisition(name)
    return float(maximize_on_interval(lambda x: utility(belief, x), jnp.asarray(bound)))


def test_known_maximizers():
    """PI's lies in (0, a/h] and goes to 0 with s; EI's is at least a/h and grows with noise."""
    newton = 2.0
    assert chosen("expected_decrease", 2.0, 1.0, 0.5, 0.5, 0.1, 10.0) == pytest.approx(newton, 1e-3)
    steps = [chosen("probability_of_improvement", 2.0, 1.0, 0.5, 0.5, s, 10.0) for s in (1.0, 0.01)]
    assert newton > steps[0] > steps[1] > 0
    steps = [chosen("expected_improvement", 2.0, 1.0, p, 0.0, 0.1, 10.0) for p in (0.0, 0.5, 4.0)]
    assert steps[0] == pytest.approx(newton, rel=2e-3)
    assert steps[0] < steps[1] < steps[2] < 10.0
    # Unbounded as soon as the curvature is uncertain: the trust interval is what ends it.
    assert chosen("expected_improvement", 2.0, 1.0, 0.0, 0.5, 0.1, 1e3) == pytest.approx(1e3)
    assert chosen(improvement_threshold(0.9), 2.0, 1.0, 0.0, 0.0, 0.1, 9.0) == pytest.approx(
        2 * newton, rel=1e-3
    )
