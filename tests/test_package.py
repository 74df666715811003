"""What `pip install .` takes along: all of the packages, not only what an editable one finds."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("curvature", "optimizers", "experiments")
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def files_of(package):
    return [p.relative_to(ROOT) for p in (ROOT / package).rglob("*") if p.is_file()]


def test_every_folder_is_installed():
    folders = {f.parent for p in PACKAGES for f in files_of(p) if f.suffix == ".py"}
    assert sorted(SETTINGS["packages"]) == sorted(f"mekax.{'.'.join(f.parts)}" for f in folders)


def test_every_file_that_is_no_code_is_installed():
    data = {f for p in PACKAGES for f in files_of(p) if f.suffix not in (".py", ".pyc")}
    listed = {
        Path(*package.split(".")[1:]) / name
        for package, names in SETTINGS["package-data"].items()
        for name in names
    }
    assert data == listed
