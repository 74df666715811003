"""Whatever happens: parameters stay sound, bad batches are counted, training goes on after."""

import numpy as np
import pytest
from hypothesis import given, note
from hypothesis import strategies as st
from mekax.optimizers import Outcome

from .scenarios import KINDS, NARROW, SITES, TAME, Structure, cases, program

SUITE = (Structure("adameka", "mixed", 3),)
CAMPAIGN = (
    Structure("meka", "half", 1),
    Structure("adameka", "half", 1),
    Structure("adameka", "nested", 4),
    Structure("meka", "nested", 4),
    Structure("meka-diagonal", "mixed", 2),
    Structure("meka-published", "vector", 8),
    Structure("adameka-reverse", "vector", 2),
    Structure("adam-ei", "nested", 16),
)
EACH = [
    *(pytest.param(structure, False, id="-".join(map(str, structure))) for structure in SUITE),
    *(pytest.param(structure, True, id="-".join(map(str, structure))) for structure in CAMPAIGN),
]
MOST_WAITS = 10  # batches in a row that may see no descent, or steps too short for bfloat16
# Averages of Optax's own keep a NaN for good, and every batch is left out from then on.
OURS = [each for each in EACH if each.values[0].optimizer != "adam-ei"]
ROUNDING = {"half": 2.0**-7, "mixed": 2.0**-9, "nested": 2.0**-22, "vector": 2.0**-22}


@pytest.fixture
def _in_time(request, in_campaign):
    if request.node.callspec.params["rare"] and not in_campaign:
        pytest.skip("compiled in the campaign only")


@pytest.mark.usefixtures("_in_time")
@pytest.mark.parametrize(("structure", "rare"), EACH)
@given(data=st.data())
def test_nothing_is_corrupted(structure, rare, tally, data):
    case = data.draw(cases(structure.tree))
    trace = program(structure)(case)
    tally["cases in which anything goes"] += 1
    tally[f"  objective {KINDS[case.kind]}"] += 1
    if case.fault:
        tally[f"  fault in {SITES[case.site]}"] += 1
    tally["  batches left out and counted"] += int(trace.rejected[-1])
    tally["  steps taken back"] += int(np.sum(trace.metrics["outcome"] == Outcome.REJECTED))
    tally["  returns to the average"] += int(np.sum(trace.metrics["outcome"] == Outcome.RETURNED))
    check_soundness(trace, case, structure)


BAD = (Outcome.SKIPPED, Outcome.REJECTED, Outcome.RETURNED)


def allowed(size, structure):
    """By how much rounding may miss a point."""
    return 4 * ROUNDING[structure.tree] * size + 1e-7 * (structure.tree in NARROW)


def check_soundness(trace, case, structure):
    note(f"{structure}, rejected {trace.rejected}, loss {trace.loss}")
    assert np.isfinite(trace.params).all(), "parameters are corrupted"
    for name, values in trace.metrics.items():
        assert np.isfinite(values).all(), f"{name} is not finite: {values}"
    rejected = np.diff(trace.rejected, prepend=0)
    assert set(rejected) <= {0, 1}, "a batch was counted twice, or not for good"
    bad = ~(np.isfinite(trace.loss) & trace.gradient_finite)
    assert (rejected[bad] == 1).all(), "something was not finite, and it was not counted"
    good, in_a_row = trace.params[0], 0  # the last point at which a step was chosen
    for step, no in enumerate(rejected):
        outcome = trace.metrics["outcome"][step]
        # A return after a rise is for a batch that is finite.
        assert outcome in BAD if no else outcome not in (Outcome.SKIPPED, Outcome.REJECTED)
        in_a_row = in_a_row + 1 if no else 0
        if outcome == Outcome.RETURNED:
            good, before = trace.params[step + 1], trace.params[: step + 1]
            tolerance = allowed(np.abs(before).max(axis=0), structure)
            assert (good >= before.min(axis=0) - tolerance).all(), (
                "an average is below all iterates"
            )
            assert (good <= before.max(axis=0) + tolerance).all(), (
                "an average is above all iterates"
            )
        elif outcome == Outcome.REJECTED:
            assert in_a_row >= 10, "a step was taken back for too few bad batches"
            tolerance = allowed(np.maximum(np.abs(good), np.abs(trace.params[step])), structure)
            error = np.abs(trace.params[step + 1] - good)
            assert (error <= tolerance).all(), f"step {step} leads elsewhere than back"
        elif no:
            stays = trace.params[step + 1] == trace.params[step]
            assert stays.all(), f"step {step} is none, and moves the parameters"
        else:
            good = trace.params[step]


@pytest.mark.usefixtures("_in_time")
@pytest.mark.parametrize(("structure", "rare"), OURS)
@given(data=st.data())
def test_training_goes_on_after_a_fault(structure, rare, tally, data):
    case = data.draw(cases(structure.tree, TAME, faulty=True))
    trace = program(structure)(case)
    tally["cases of a fault in a sound training"] += 1
    check_soundness(trace, case, structure)
    assert trace.rejected[case.end - 1] - trace.rejected[case.begin] == case.end - case.begin - 1
    late = trace.rejected[case.end :]
    assert (late == late[0]).all(), "batches are left out after the fault has ended"
    moved = np.abs(np.diff(trace.params, axis=0)).max(axis=1)
    waits = int(np.argmax(moved[case.end :] > 0)) if moved[case.end :].any() else MOST_WAITS + 1
    tally[f"  first step {waits + 1} batches after the fault"] += 1
    assert waits <= MOST_WAITS, "no step is made for long"
    for step in range(case.end, case.end + waits):
        # Only a batch that sees no descent makes none, or one whose step is lost in rounding.
        length = trace.metrics["step_size"][step] * trace.metrics["direction_norm"][step]
        lost = length <= ROUNDING[structure.tree] * np.abs(trace.params[step]).max()
        assert trace.metrics["slope"][step] >= 0 or lost, "a good batch makes no step"
