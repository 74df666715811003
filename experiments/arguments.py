"""Options of the command line that take several values: `--optimizers meka adam:1e-3 sgd:0.1`."""

from collections.abc import Collection, Iterable


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
