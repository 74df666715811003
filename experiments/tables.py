"""The final table of a comparison."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from .intervals import Interval
from .summary import Row, Sweep

_TITLES = {
    "train_loss": "train loss",
    "test_loss": "test loss",
    "test_accuracy": "test accuracy",
}


def table(problem: str, rows: Sequence[Row]) -> Table:
    """One row per optimizer; with several seeds, means with 95 % bootstrap intervals."""
    seeds = max(len(row.runs) for row in rows)
    over = f", mean of {seeds} seeds [95 % bootstrap interval]" if seeds > 1 else ""
    test = "test_accuracy" if "test_accuracy" in rows[0].measures() else "test_loss"
    result = Table(title=f"{problem}{over}", title_justify="left")
    result.add_column("optimizer", no_wrap=True)
    headings = ["train loss", _TITLES[test], "seconds", "step size p5–p95", "steps/s", "compile s"]
    for heading in headings:
        result.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        result.add_row(
            row.label + (" (interrupted)" if row.interrupted else ""),
            _loss(row),
            _interval(row.final(test), percent=test == "test_accuracy"),
            _seconds(row.seconds().mean),
            _range(row.step_size_range()),
            _speed(row.steps_per_second()),
            f"{row.compile_seconds():.1f}",
        )
    return result


def sweep_line(sweep: Sweep) -> str:
    """One line about what a sweep found and cost."""
    tried = ", ".join(
        f"{spec.learning_rate:g}: {loss:.4g}"
        for spec, loss in zip(sweep.specs, sweep.train_losses, strict=True)
    )
    rates = [spec.learning_rate or 0.0 for spec in sweep.specs]
    edge = (
        ", at the end of the grid" if sweep.best.learning_rate in (min(rates), max(rates)) else ""
    )
    return (
        f"{sweep.kind}: best of {len(rates)} learning rates is {sweep.best.learning_rate:g}{edge}; "
        f"the sweep took {sweep.seconds:.1f} s of training (final train losses {tried})"
    )


def _loss(row: Row) -> str:
    if not row.diverged:
        return _interval(row.final("train_loss"))
    if row.diverged == len(row.runs):
        return "diverged"
    value = _interval(row.final("train_loss"))
    return f"{value}, {row.diverged} of {len(row.runs)} diverged"


def _interval(interval: Interval | None, percent: bool = False) -> str:
    if interval is None:
        return "–"
    numbers = [f"{100 * x:.2f}" if percent else f"{x:.4g}" for x in interval]
    unit = " %" if percent else ""
    if interval.low == interval.high:
        return numbers[0] + unit
    return f"{numbers[0]}{unit} [{numbers[1]}, {numbers[2]}]"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.1f}"


def _speed(steps_per_second: float) -> str:
    return f"{steps_per_second:,.0f}" if steps_per_second >= 100 else f"{steps_per_second:.3g}"


def _range(ends: tuple[float, float] | None) -> str:
    if ends is None:
        return "–"
    low, high = (f"{end:.2g}" for end in ends)
    return low if low == high else f"{low}–{high}"
