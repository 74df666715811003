"""The command line; each command checks its input before it imports anything heavy."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from . import registry
from .benchmark import run as benchmarks
from .benchmark import suite
from .compare import plan as comparisons
from .compare.run import compare as run_comparison
from .errors import UsageError, output_folder, positive_integer, spread, unknown_name

INTERRUPTED = 130  # exit code of a program stopped by Ctrl-C
FAILED = 1  # exit code where a claim does not hold


class Group(click.Group):
    """Shows bad input as one paragraph, with exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            click.echo(f"mekax: {error}", err=True)
            ctx.exit(2)


class Command(click.Command):
    """Lets some options take several words."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for parameter in self.params:
            if isinstance(parameter, click.Option) and parameter.multiple:
                args = spread(args, parameter.opts[0], stop=registry.PROBLEMS)
        return super().parse_args(ctx, args)


_OF_GROUP = {
    words: ", ".join(row.name for row in registry.group(*groups))
    for words, groups in {
        "ours": ("ours", "direction"),
        "baselines": ("baseline",),
        "others": ("learning_rate_free",),
        "variations": ("scaled", "ablation"),
    }.items()
}
_data_dir = click.option(
    "--data-dir", metavar="DIR", help="Prepared datasets [default: $TFDS_DATA_DIR]."
)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mekax")
def main() -> None:
    """Learning-rate-free, Kalman-filtered optimization: comparisons and reproductions."""


@main.command("problems")
def problems_command() -> None:
    """List the test problems."""
    width = max(len(name) for name in registry.PROBLEMS)
    for name, entry in registry.PROBLEMS.items():
        click.echo(f"{name:<{width}}  {entry.description}")


@main.command(
    cls=Command,
    epilog=f"Optimizers: {_OF_GROUP['ours']}, which need no learning rate; the baselines "
    f"{_OF_GROUP['baselines']}, whose rate follows a colon, for example adam:1e-3; "
    f"{_OF_GROUP['others']}; and all variations that mekax benchmark --help names.",
)
@click.argument("problems", metavar="[PROBLEM]...", nargs=-1)
@click.option(
    "--optimizers",
    multiple=True,
    metavar="NAME...",
    help=f"What to compare [default: {' '.join(comparisons.DEFAULT_OPTIMIZERS)}].",
)
@click.option("--epochs", metavar="N", help="Passes over the data [default: the problem's].")
@click.option("--seconds", metavar="S", help="Training time of each run, instead of --epochs.")
@click.option("--batch-size", metavar="N", help="Examples per step [default: the problem's].")
@click.option("--seeds", metavar="K", default="1", show_default=True, help="Repetitions.")
@click.option("--tune", is_flag=True, help="Sweep the learning rates of the baselines.")
@_data_dir
@click.option("--out", metavar="DIR", help="Results and figures [default: results/PROBLEM-TIME].")
@click.option("--resume", is_flag=True, help="Continue what was interrupted in --out, if anything.")
@click.pass_context
def compare(ctx: click.Context, **options: Any) -> None:
    """Train with several optimizers side by side [default problem: digits].

    A problem is a name that `mekax problems` lists, or a Python file of your own with a function
    problem(name, source).
    """
    asked = comparisons.check(**options)
    if options["resume"] and asked.earlier is None:
        click.echo(f"Nothing to continue in {asked.out}: beginning.")
    if not run_comparison(asked, _console(), sys.argv):
        ctx.exit(INTERRUPTED)


@main.command(
    cls=Command,
    epilog=f"Optimizers: {_OF_GROUP['baselines']}, {_OF_GROUP['others']}, {_OF_GROUP['ours']}; "
    f"with --ablate also {_OF_GROUP['variations']}.",
)
@click.argument("problems", metavar="[PROBLEM]...", nargs=-1)
@click.option(
    "--profile",
    metavar="NAME",
    default="standard",
    show_default=True,
    help="How thorough: "
    + "; ".join(f"{name}, {one.description}" for name, one in suite.PROFILES.items())
    + ".",
)
@click.option(
    "--batch-size",
    multiple=True,
    metavar="N...",
    help="Examples per step, or all [default: the profile's].",
)
@click.option(
    "--optimizers", multiple=True, metavar="NAME...", help="What to compare [default: all]."
)
@click.option("--ablate", is_flag=True, help="Compare variations of ours as well.")
@click.option(
    "--jobs", metavar="N", help="Processes, of one thread each [default: as many as cores]."
)
@click.option(
    "--backend",
    metavar="NAME",
    default="loky",
    show_default=True,
    help="What carries the jobs: processes on this machine (loky), dask, or ray.",
)
@click.option("--seeds", metavar="K", help="Repetitions [default: the profile's].")
@_data_dir
@click.option("--out", metavar="DIR", help="Jobs and report; continued if it holds some.")
@click.pass_context
def benchmark(ctx: click.Context, **options: Any) -> None:
    """Compare self-tuning with swept baselines and with others' methods, on a suite of problems.

    Repeat the command with the same --out to continue what was stopped, or to add problems or
    optimizers; start it several times at once, and the processes share the work.
    """
    asked = benchmarks.check(**options)
    if "jax" not in sys.modules:
        # One thread each, XLA's own name for it: processes share the cores, and no result depends
        # on how many there are.
        os.environ["NPROC"] = "1"
    if not benchmarks.benchmark(asked, _console(), sys.argv):
        ctx.exit(INTERRUPTED)


@main.command()
@click.argument("tables", metavar="[TABLE...]", nargs=-1)
@click.option("--quick", is_flag=True, help="Something small for each table: two or three minutes.")
@click.option(
    "--rounds", metavar="N", default="20", show_default=True, help="Measurements of each."
)
@click.option("--out", metavar="DIR", help="Tables and picture [default: results/profile].")
@click.pass_context
def profile(
    ctx: click.Context, tables: tuple[str, ...], quick: bool, rounds: str, out: str | None
) -> None:
    """Measure what a step costs in time and memory, next to Adam's in the same process.

    Without a TABLE, all tables are made.
    """
    from .profile import TABLES

    for name in tables:
        if name not in TABLES:
            raise unknown_name("a table", name, TABLES)
    n_rounds = positive_integer("--rounds", rounds)
    folder = output_folder(out or "results/profile", "profile.json")
    from .profile.run import profile as run

    options = {"tables": tables, "quick": quick, "rounds": n_rounds}
    if not run(folder, console=_console(), command=sys.argv, **options):
        ctx.exit(INTERRUPTED)


@main.command()
@click.argument("names", metavar="NAME...", nargs=-1)
@click.option("--quick", is_flag=True, help="Smaller: a minute or two each, on two cores.")
@click.option("--seeds", metavar="K", help="Repetitions [default: 10, with --quick 3, or fewer].")
@click.option("--device", metavar="NAME", help="cpu, gpu, tpu or gpu:1 [default: JAX's choice].")
@click.option("--out", metavar="DIR", help="Results and figures; continued if it holds some.")
@click.pass_context
def reproduce(ctx: click.Context, **options: Any) -> None:
    """Recompute published or promised results, and say which claims hold.

    NAME is one of the reproductions, or all, which also makes one report of everything. Repeat an
    interrupted command with the same --out to continue it.
    """
    from .reproductions.run import reproduce as run

    try:
        holds = run(**options, console=_console(), command=sys.argv)
    except KeyboardInterrupt:
        ctx.exit(INTERRUPTED)
    if not holds:
        ctx.exit(FAILED)


@main.command()
@click.argument("programs", metavar="[PROGRAM...]", nargs=-1)
@click.option(
    "--quick",
    is_flag=True,
    help="A few steps of each, mostly compiling: about ten minutes on one core.",
)
@click.option("--seeds", metavar="K", help="Repetitions [default: 3, with --quick 1].")
@click.option("--out", metavar="DIR", help="Table and numbers [default: results/gallery].")
@click.pass_context
def gallery(
    ctx: click.Context, programs: tuple[str, ...], quick: bool, seeds: str | None, out: str | None
) -> None:
    """Train public programs with their optimizer, with Adam's default and with ours.

    Without a PROGRAM, all are trained.
    """
    from .gallery import ENTRIES

    for name in programs:
        if name not in ENTRIES:
            raise unknown_name("a program", name, ENTRIES)
    n_seeds = positive_integer("--seeds", seeds or ("1" if quick else "3"))
    folder = output_folder(out or "results/gallery", "gallery.json")
    if quick and "jax" not in sys.modules:
        # Compiling is most of it: XLA's quickest, with which times say nothing.
        os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    from .gallery.run import gallery as run

    options = {"names": programs, "quick": quick, "seeds": n_seeds}
    if not run(folder, console=_console(), command=sys.argv, **options):
        ctx.exit(INTERRUPTED)


@main.command("view")
@click.argument("runs", metavar="RUN...", nargs=-1)
@click.option("--out", metavar="DIR", help="Where the report goes [default: beside the first RUN].")
def view_command(runs: tuple[str, ...], out: str | None) -> None:
    """Show what runs recorded: an interactive page that works offline, and a picture.

    A RUN is a file that mekax.experiments.Recorder wrote, a folder of such files (*.jsonl), or a
    folder that mekax compare wrote; several are drawn into the same plots.
    """
    if not runs:
        raise UsageError(
            "expected at least one run to show, got none. Name a file that a Recorder wrote, or a "
            "folder that mekax compare wrote."
        )
    from .view import view

    view([Path(run).expanduser() for run in runs], out, lambda text: click.echo(text))


def _console() -> Any:
    from rich.console import Console

    console = Console()
    # A log has no width of its own: keep the tables whole.
    return console if console.is_terminal else Console(width=200)
