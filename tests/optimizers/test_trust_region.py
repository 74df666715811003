"""Trust regions on scalars, through their own functions: how the radius closes its loop."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mekax.curvature import LineBelief
from mekax.optimizers import Evidence, Outcome, adaptive_trust_region, meka, newton_trust_region

DTYPE = jnp.dtype(jnp.float32)
LIMIT = jnp.float32(1e9)


def line(slope, curvature=1.0, slope_variance=0.0):
    values = dict.fromkeys(LineBelief._fields, 0.0)
    values |= {"slope": slope, "curvature": curvature, "slope_variance": slope_variance}
    return LineBelief(**{name: jnp.float32(x) for name, x in values.items()})


def evidence(difference=0.0, excess=0.0, risen=False, changed=False):
    """What the averages say: by default, nothing."""
    return Evidence(
        jnp.float32(difference), jnp.float32(excess), jnp.asarray(risen), jnp.asarray(changed)
    )


def after(length, curvature=1.0, slope=-1.0):
    """The line of a step from slope −1, seen at its end, in units of the step."""
    return line(length * (slope + length * curvature), length**2 * curvature)


@partial(jax.jit, static_argnums=0)
def updated(region, state, outcome, observation, belief, norm=1.0, said=None):
    """The state after a step, and the radius then."""
    said = evidence() if said is None else said
    state = region.update(state, outcome, observation, belief, said, jnp.float32(norm), LIMIT)
    return state, region.radius(state)


def lengths(region, steps, curvature=1.0, slope_after=None, difference=0.0, excess=0.0):
    """Radii where every step goes all the way, along lines that are always the same."""
    belief, said = line(-1.0, curvature), evidence(difference, excess)

    def step(carry, _):
        state, length = carry
        seen = after(length, curvature)
        if slope_after is not None:
            seen = seen._replace(slope=slope_after * seen.curvature)
        taken = jnp.int32(Outcome.TAKEN)
        state = region.update(state, taken, seen, belief, said, jnp.float32(1), LIMIT)
        length = region.radius(state)
        return (state, length), length

    state, length = updated(region, region.init(DTYPE), Outcome.NONE, line(0.0, 0.0), belief)
    (state, _), rest = jax.jit(lambda c: jax.lax.scan(step, c, length=steps))((state, length))
    return np.array([length, *rest]), state


@pytest.mark.parametrize("curvature", [1e-3, 3.0, 1e4])
@pytest.mark.parametrize(
    ("difference", "excess", "newton_steps"),
    [(1.0, 1.0, 1 / 1.1), (1.0, -1.0, 1 / 1.1), (0.0, 0.0, 1 / 0.675), (-1.0, 1.0, 2.0)],
    ids=["noise", "noise in averages", "unknown", "progress in averages"],
)
def test_the_radius_settles_between_the_minimum_of_the_line_and_the_edge(
    curvature, difference, excess, newton_steps
):
    """Slope over curvature after the step is ρ where the length is 1/(1 − ρ) Newton steps."""
    found, _ = lengths(adaptive_trust_region(), 3000, curvature, None, difference, excess)
    found = found * curvature
    assert found[0] == pytest.approx(0.4, rel=1e-3)
    assert found[-1] == pytest.approx(newton_steps, rel=2e-2)
    assert found.max() < 1.02 * newton_steps


def test_where_the_iterate_is_ahead_steps_grow_over_the_edge():
    """No slope is as large as its curvature: only what no step exceeds ends the growth."""
    found, _ = lengths(adaptive_trust_region(), 3000, 2.0, None, -1.0, -1.0)
    assert found[-1] == pytest.approx(3 / 2, rel=1e-5)
    found, _ = lengths(adaptive_trust_region(most_ratio=0.6), 3000, 2.0, None, -1.0, -1.0)
    assert found[-1] == pytest.approx(2.5 / 2, rel=2e-2)


@pytest.mark.parametrize(("difference", "excess"), [(-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0)])
def test_a_slope_that_rises_shortens_the_radius_whatever_the_averages_say(difference, excess):
    """Also where the iterate is ahead, which in policy optimization it always seems to be."""
    region = adaptive_trust_region()
    _, state = lengths(region, 20)
    said = evidence(difference, excess)
    new, _ = updated(region, state, Outcome.TAKEN, line(1e3, 1.0), line(-1.0), said=said)
    assert float(new.log_step_size - state.log_step_size) == pytest.approx(-5 / 71, rel=0.05)


def test_a_return_shortens_the_radius_and_a_new_problem_makes_it_anew():
    region = adaptive_trust_region()
    _, state = lengths(region, 50)
    taken, _ = updated(region, state, Outcome.TAKEN, after(1.0), line(-1.0))
    new, _ = updated(
        region, state, Outcome.TAKEN, after(1.0), line(-1.0), said=evidence(risen=True)
    )
    assert float(new.log_step_size - taken.log_step_size) == pytest.approx(-0.35, rel=1e-3)
    said = evidence(changed=True)
    new, radius = updated(region, state, Outcome.TAKEN, after(1.0), line(-1.0, 4.0), said=said)
    assert int(new.count) == 0
    assert float(radius) == pytest.approx(0.4 / 4, rel=1e-3)


def test_arguments_of_the_adaptive_region_do_what_they_say():
    """On the line of a Newton step 1: where the radius starts and settles, and how fast."""
    region = adaptive_trust_region(least_ratio=0.1, most_ratio=0.6, initial_newton_ratio=0.5)
    for difference, ratio in ((1.0, 0.1), (-1.0, 0.6)):
        found, _ = lengths(region, 1000, difference=difference, excess=difference)
        assert found[0] == pytest.approx(0.5, rel=1e-3)
        assert found[-1] == pytest.approx(1 / (1 - ratio), rel=2e-2)
    found, _ = lengths(adaptive_trust_region(max_newton_ratio=0.7), 300)
    assert found[-1] == pytest.approx(0.7, rel=1e-5)
    found, _ = lengths(adaptive_trust_region(adaptation_gain=lambda count: 0.0), 30)
    np.testing.assert_allclose(found, 0.4, rtol=1e-5)


def test_the_gain_is_logarithmic():
    """Between k and 10 k steps the radius can move as far as between 10 k and 100 k."""
    # A line that falls on without bending is as far from the aim as can be.
    region = adaptive_trust_region(max_newton_ratio=jnp.inf)
    belief = line(-1.0)
    state, _ = updated(region, region.init(DTYPE), Outcome.NONE, line(0.0, 0.0), belief)
    for count in (1, 100, 10_000):
        before = state._replace(count=jnp.int32(count))
        new, _ = updated(region, before, Outcome.TAKEN, line(-1.0, 0.0), belief)
        moved = float(new.log_step_size - before.log_step_size)
        assert moved == pytest.approx(5 / (count + 51), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("count", [0, 1, 10_000])
def test_a_step_of_which_rounding_leaves_nothing_doubles_the_radius(count):
    region, belief = adaptive_trust_region(max_newton_ratio=jnp.inf), line(-1.0)
    state, _ = updated(region, region.init(DTYPE), Outcome.NONE, line(0.0, 0.0), belief)
    before = state._replace(count=jnp.int32(count))
    new, radius = updated(region, before, Outcome.UNRESOLVED, line(0.0, 0.0), belief)
    assert float(radius) == pytest.approx(2 * float(state.radius), rel=1e-4)
    assert int(new.count) == max(count, 1)  # so that the radius is not set anew


def test_steps_cut_short_say_nothing_for_longer_ones():
    state, _ = updated(
        region := adaptive_trust_region(), region.init(DTYPE), 0, line(0.0, 0.0), line(-1.0)
    )
    # Slope −0.9 after a tenth of a Newton step: go farther; +1 after two of them: go less far.
    for outcome, length, sign in (
        (Outcome.TAKEN, 0.1, 1),
        (Outcome.TRUNCATED, 0.1, 0),
        (Outcome.TAKEN, 2.0, -1),
        (Outcome.TRUNCATED, 2.0, -1),
    ):
        new, _ = updated(region, state, outcome, after(length), line(-1.0))
        change = float(new.log_step_size - state.log_step_size)
        assert np.sign(change) == sign, (outcome, length)
        assert int(new.count) == 1


@pytest.mark.parametrize("outcome", [Outcome.NONE, Outcome.EXTERNAL])
def test_what_is_no_step_of_its_own_teaches_nothing(outcome):
    region = adaptive_trust_region()
    _, state = lengths(region, 5)
    new, _ = updated(region, state, outcome, after(2.0), line(-1.0))
    assert float(new.log_step_size) == float(state.log_step_size)
    assert int(new.count) == 5 - (outcome == Outcome.EXTERNAL)
    for _ in range(8):  # until the steps of others have taken back all others
        new, radius = updated(region, new, outcome, after(2.0), line(-1.0, 4.0))
    if outcome == Outcome.EXTERNAL:
        assert int(new.count) == 0
        assert float(radius) == pytest.approx(0.4 / 4, rel=0.2)  # of the line ahead, afresh


def test_a_step_taken_back_shortens_the_next_ones_for_a_while():
    """The interval is halved, recovers within ten good steps, and the radius itself stays."""
    region = adaptive_trust_region()
    found, state = lengths(region, 100, slope_after=0.325)  # exactly what is aimed at
    before, rejected = found[-1], region.reject(state)
    assert float(rejected.log_step_size) == float(state.log_step_size)
    assert float(region.radius(rejected)) == pytest.approx(0.5 * before, rel=1e-3)
    ratios, length = [], region.radius(rejected)
    for _ in range(12):
        seen = after(float(length))
        seen = seen._replace(slope=0.325 * seen.curvature)
        rejected, length = updated(region, rejected, Outcome.TAKEN, seen, line(-1.0))
        ratios.append(float(length) / before)
    assert ratios[0] == pytest.approx(2**-0.8, rel=0.05)
    assert ratios == sorted(ratios)
    assert ratios[9] > 0.9


def late_exponent(region):
    """d log τ / d log k over the last decade of steps in which noise hides the slope.

    The loss no longer falls, so the slope after a step is half its curvature, and the noise of one
    batch is ten times that at the first step, more and more later.
    """

    def step(carry, noise):
        state, length = carry
        kappa = jnp.square(length)
        seen = line(0.0)._replace(slope=0.5 * kappa + 1.5 * length * noise, curvature=kappa)
        taken = jnp.int32(Outcome.TAKEN)
        said = evidence(1.0)  # noise rules
        state = region.update(state, taken, seen, line(-1.0), said, jnp.float32(1), LIMIT)
        length = region.radius(state)
        return (state, length), state.log_step_size

    noise = jax.random.normal(jax.random.key(0), (30_000,))
    start = updated(region, region.init(DTYPE), Outcome.NONE, line(0.0, 0.0), line(-1.0))
    radii = jax.jit(lambda c: jax.lax.scan(step, c, noise)[1])(start)
    return float(radii[-1] - radii[3_000]) / np.log(10)


def test_steps_anneal_where_single_batches_see_noise():
    """Averages over a part of all steps keep the radius falling; a single batch stops it."""
    single = late_exponent(adaptive_trust_region(averaging_weight=lambda count: 1.0))
    assert -0.2 < single < 0
    assert -1.1 < late_exponent(adaptive_trust_region()) < -0.3


@pytest.mark.parametrize("make", [adaptive_trust_region, newton_trust_region])
def test_no_step_leads_farther_than_some_newton_steps(make):
    """At most three of the line's lower end, min(s, 0) − √p, or of the mean for the published."""
    region = make()
    belief = line(-1.0, 2.0, slope_variance=0.25)
    state = region.init(DTYPE)
    for _ in range(50):  # steps that stop short of where the loss falls ever more
        state, radius = updated(region, state, Outcome.TAKEN, line(-1.0, 0.0), belief)
    slope = 1.5 if make is adaptive_trust_region else 1.0
    assert float(radius) == pytest.approx(3 * slope / 2.0, rel=1e-3)


@pytest.mark.parametrize("make", [adaptive_trust_region, newton_trust_region])
def test_a_curvature_that_vanishes_for_once_is_not_believed(make):
    """The larger of the newest one and its running magnitude ends the interval."""
    region = make()
    state = region.init(DTYPE)
    for curvature in [1.0] * 30 + [1e-6]:
        seen, ahead = line(-1.0, 0.0), line(-1.0, curvature)
        state, radius = updated(region, state, Outcome.TAKEN, seen, ahead)
    assert float(radius) < 3.5
    state, radius = updated(region, state, Outcome.TAKEN, line(-1.0, 0.0), line(-1.0, 100.0))
    assert float(radius) <= 0.03 * (1 + 1e-5)  # a steep one is believed at once


@pytest.mark.parametrize("make", [adaptive_trust_region, newton_trust_region])
def test_extremes_stay_finite(make):
    region = make()
    for slope in (-1e18, -1.0, -1e-30, 0.0, 1.0):
        for curvature in (-1e18, 0.0, 1e-30, 1e18):
            for norm in (0.0, 1e-30, 1.0, 1e30):
                belief, state = line(slope, curvature), region.init(DTYPE)
                for outcome in Outcome:
                    state, radius = updated(region, state, outcome, belief, belief, norm)
                    assert float(radius) >= 0
                    assert all(np.isfinite(float(x)) for x in state)


def test_anything_with_these_functions_is_a_trust_region(regression, train):
    """An interval of a length that never changes, made of the published one."""
    region = newton_trust_region()._replace(radius=lambda state: jnp.float32(1e-3))
    losses, params, batches = regression
    tx = meka("expected_improvement", trust_region=region)
    first = jax.tree.map(lambda x: x[:1], batches)
    moved, _, _ = train(tx, losses, params, first)
    assert np.sqrt(np.sum(moved["w"] ** 2) + moved["b"] ** 2) <= 1e-3 * (1 + 1e-5)


@pytest.mark.parametrize("region", [adaptive_trust_region, "adaptive", 0.5])
def test_other_things_are_refused(region):
    with pytest.raises(TypeError, match=r"adaptive_trust_region\(\) or newton_trust_region\(\)"):
        meka(trust_region=region)
