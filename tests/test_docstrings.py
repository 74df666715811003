"""Every example in a docstring of the library runs and prints what it says."""

import doctest
import importlib
import inspect
import pkgutil

import mekax.curvature
import mekax.experiments.solvers
import mekax.optimizers
import pytest

PACKAGES = (mekax.curvature, mekax.optimizers, mekax.experiments.solvers)
MODULES = sorted(
    f"{package.__name__}.{info.name}"
    for package in PACKAGES
    for info in pkgutil.iter_modules(package.__path__)
)
EXPERIMENTS = [
    f"mekax.experiments.{name}"
    for name in (
        *("profile.communication", "profile.run", "profile.steps", "profile.timing"),
        *("recorder", "view.quantities", "view.recording", "view.terminal"),
    )
]


@pytest.mark.parametrize("name", [*MODULES, *EXPERIMENTS])
def test_examples_run(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


@pytest.mark.parametrize(
    ("package", "name"), [(p, n) for p in PACKAGES for n in p.__all__], ids=lambda x: str(x)
)
def test_every_public_name_is_documented(package, name):
    thing = getattr(package, name)
    if inspect.isfunction(thing):
        assert thing.__doc__, f"{name} has no docstring"
        assert thing.__doc__.strip().split("\n")[0].endswith((".", ":"))
        assert ">>>" in thing.__doc__, f"{name} has no example"
