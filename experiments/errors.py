"""The one exception for input that cannot work, and help with misspelled names."""

import difflib
from collections.abc import Iterable


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
