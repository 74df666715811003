"""What a user types, checked: one exception for input that cannot work, and the checks."""

from __future__ import annotations

import difflib
import math
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

_ELSEWHERE = "Choose another folder, or move that one away."


class UsageError(Exception):
    """Bad input from the user: one paragraph saying what was expected, what came, what to do."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Sentence that suggests the closest known name, followed by a space; empty if none is close.

    Example:
      >>> did_you_mean("mnits", ["mnist", "digits"])
      "Did you mean 'mnist'? "
    """
    matches = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.5)
    return f"Did you mean {matches[0]!r}? " if matches else ""


def unknown_name(kind: str, name: str, known: Iterable[str], more: str = "") -> UsageError:
    """Error for a name that is not among the known ones; `more` says where there are others."""
    known = list(known)
    return UsageError(
        f"expected the name of {kind}, got {name!r}. {did_you_mean(name, known)}"
        f"Known names: {', '.join(known)}.{more and ' '}{more}"
    )


def positive_integer(option: str, text: str) -> int:
    """Read a whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise UsageError(
            f"expected {option} to be a whole number of at least 1, got {text!r}. "
            f"Write for example {option} 5."
        )
    return value


def positive_number(option: str, text: str) -> float:
    """Read a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise UsageError(
            f"expected {option} to be a positive number, got {text!r}. "
            f"Write for example {option} 30."
        )
    return value


def output_folder(text: str, *files: str, advice: str = _ELSEWHERE) -> Path:
    """Make the folder, and make sure that it can be written to and has none of the files.

    Args:
      text: the folder.
      files: names of files that must not exist.
      advice: what to do if one does.

    Raises:
      UsageError: if it cannot be written to, or writing would replace an earlier result.
    """
    folder = Path(text).expanduser()
    for file in files:
        if (folder / file).exists():
            raise UsageError(
                f"expected --out to be a folder without earlier results, but {folder / file} "
                f"exists. {advice}"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"expected --out to be a folder that can be written to, got {text!r} "
            f"({error.strerror or error}). Choose another folder."
        ) from error
    return folder


def expect_same(
    path: Path, what: str, recorded: Mapping[str, Any], now: Mapping[str, Any], advice: str
) -> None:
    """Make sure that what a folder was begun with is as it was.

    Args:
      path: file of the record.
      what: is compared, for the message.
      recorded: content of the file.
      now: what there would be, in the plain values of JSON.
      advice: what to do if they differ.

    Raises:
      UsageError: naming everything that differs.
    """

    def words(value: Any) -> str:
        if value is None:
            return "not given"
        return " ".join(map(str, value)) if isinstance(value, list) else str(value)

    differing = [
        f"{name} was {words(recorded.get(name))}, is now {words(now.get(name))}"
        for name in dict.fromkeys((*recorded, *now))
        if recorded.get(name) != now.get(name)
    ]
    if differing:
        raise UsageError(
            f"expected the {what} recorded in {path} to continue with, got others: "
            f"{'; '.join(differing)}. {advice}"
        )


def spread(arguments: Iterable[str], option: str, stop: Collection[str] = ()) -> list[str]:
    """Repeat an option before each of its values, as a parser of single values expects it.

    The values of the option are the words after it, up to the next option or to a word of
    `stop`; commas separate values as well.

    Args:
      arguments: words of the command line.
      option: with its dashes, for example `--optimizers`.
      stop: words that are never values of the option, such as names of problems.

    Returns:
      Words in which every occurrence of the option is followed by one value. An option without a
      value is left as it is, for the parser to complain about.

    Example:
      >>> spread(["mnist", "--optimizers", "meka", "adam,sgd", "--tune"], "--optimizers")
      ['mnist', '--optimizers', 'meka', '--optimizers', 'adam', '--optimizers', 'sgd', '--tune']
    """
    words = list(arguments)
    result: list[str] = []
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if word == "--":
            return [*result, word, *words[index:]]
        values: list[str] = []
        if word == option:
            while index < len(words) and not words[index].startswith("-"):
                if words[index] in stop:
                    break
                values.extend(_split(words[index]))
                index += 1
        elif word.startswith(f"{option}="):
            values = _split(word.removeprefix(f"{option}="))
        if values:
            result.extend(piece for value in values for piece in (option, value))
        else:
            result.append(word)
    return result


def _split(text: str) -> list[str]:
    return [value for value in text.split(",") if value]
