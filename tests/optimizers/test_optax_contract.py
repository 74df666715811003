"""Optax's own contract suite for contributed optimizers, unmodified, with ours in Sophia's slot.

Sophia is the one contributed optimizer that is handed the objective, as `obj_fn`.
"""

import functools
import unittest
from unittest import mock

import jax
import optax
import pytest
from mekax.optimizers import adameka, meka, scale_by_expected_improvement

common = pytest.importorskip("optax.contrib._common_test")

# There is no learning rate that could follow a schedule, and `pmap` is for several devices.
REASONS = ("Optimizer doesn't accept a learning schedule.", "Only 1 device is available")


def along(direction):
    return lambda: optax.chain(direction, scale_by_expected_improvement())


OURS = {
    "adameka": adameka,
    "meka": meka,
    "on momentum": along(optax.trace(decay=0.9)),
}


def in_sophias_place(factory):
    """A factory that is called as `optax.contrib.sophia` is."""

    def sophia(learning_rate):
        del learning_rate
        tx = factory()

        @functools.wraps(tx.update)
        def update(updates, state, params=None, *, obj_fn=None, **extra_args):
            # Some tests hand over numbers as updates which are no gradient of their objective.
            grad = jax.grad(obj_fn)(params)
            return tx.update(updates, state, params, grad=grad, value_fn=obj_fn, **extra_args)

        return optax.GradientTransformationExtraArgs(tx.init, update)

    return sophia


def cases():
    """The tests of the suite that Sophia takes."""
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(common.ContribTest)
    return [case for case in suite if "opt_name='sophia'" in (case.shortDescription() or "")]


@pytest.mark.parametrize("name", OURS)
def test_passes_every_test_of_sophias_slot(name):
    suite = unittest.TestSuite(cases())
    assert suite.countTestCases() >= 10
    with mock.patch.object(optax.contrib, "sophia", in_sophias_place(OURS[name])):
        result = unittest.TestResult()
        suite.run(result)
    faults = [
        f"{case.shortDescription()}\n{text}" for case, text in result.failures + result.errors
    ]
    assert not faults, "\n\n".join(faults)
    assert all(reason.startswith(REASONS) for _, reason in result.skipped)
