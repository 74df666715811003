"""How problems with a differential equation solve it: fixed steps to train, a tolerance to measure.

An equation that the latter takes more than 500 steps for counts as one that it cannot solve.
"""

from functools import partial

from .. import ode

STEPS = 8

fixed_steps = partial(ode.integrate, steps=STEPS)
to_tolerance = partial(ode.solve, rtol=1e-5, atol=1e-5, max_steps=500)
