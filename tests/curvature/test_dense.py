import doctest

from . import dense


def test_examples_of_the_oracle_run():
    assert doctest.testmod(dense, optionflags=doctest.ELLIPSIS).failed == 0
