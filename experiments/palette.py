"""Colors that color-blind readers can tell apart (Okabe and Ito), the same in every figure."""

from collections.abc import Iterable

BY_OPTIMIZER = {
    "meka": "#0072B2",
    "adameka": "#009E73",
    "adam": "#D55E00",
    "adamw": "#CC79A7",
    "sgd": "#E69F00",
    "momentum": "#56B4E9",
}
SHADES = (
    *BY_OPTIMIZER.values(), "#666666", "#9A8B00",
    "#00395A", "#004F3A", "#6B2F00", "#663D54", "#735000", "#2B5A75", "#222222", "#4D4600",
)  # fmt: skip


def colors(names: Iterable[str]) -> dict[str, str]:
    """Choose a color for each name: that of its optimizer, if it is the first of its kind.

    Example:
      >>> colors(["run 7", "adam:0.001", "adam:0.01"])
      {'adam:0.001': '#D55E00', 'run 7': '#0072B2', 'adam:0.01': '#009E73'}
    """
    names = list(dict.fromkeys(names))
    chosen: dict[str, str] = {}
    for name in names:
        color = BY_OPTIMIZER.get(name.partition(":")[0])
        if color and color not in chosen.values():
            chosen[name] = color
    rest = [name for name in names if name not in chosen]
    free = [color for color in SHADES if color not in chosen.values()] or list(SHADES)
    return chosen | {name: free[place % len(free)] for place, name in enumerate(rest)}
