"""`mekax reproduce`: run what a folder does not hold yet, and say which claims hold.

Importing this module imports no jax: the input is checked first.
"""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import data, results
from ..errors import UsageError, expect_same, output_folder, positive_integer, unknown_name
from . import ALL, REPRODUCTIONS

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA = 2  # of the files
DEVICES = ("cpu", "gpu", "tpu")
Content = Mapping[str, Any]  # of the file of a reproduction


def reproduce(
    names: Sequence[str],
    quick: bool,
    seeds: str | None,
    device: str | None,
    out: str | None,
    console: Console,
    command: Sequence[str] = (),
) -> bool:
    """Run each reproduction that the folder does not hold yet, and print its verdicts.

    The file of each is written as soon as it is done, so that what was interrupted can go on.
    Returns whether every claim holds; the options are those of the command.
    """
    chosen = check_names(names)
    typed = seeds and positive_integer("--seeds", seeds)
    asked = {}
    for name in chosen:
        entry = REPRODUCTIONS[name]
        repetitions = typed or (entry.quick_seeds if quick else entry.seeds)
        asked[name] = {"quick": quick, "seeds": repetitions, "device": device}
    computing = on_device(device)
    remarks = check_data(chosen, quick)
    words = ALL if ALL in names else "+".join(chosen)
    folder = output_folder(out or f"results/{words}-{datetime.now():%Y%m%d-%H%M%S}")
    there = {name: finished(folder / f"{name}.json", asked[name]) for name in chosen}
    from . import report
    from .trainings import keep

    def tell(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    for remark in remarks:
        tell(remark)
    holds = True
    try:
        with computing:
            for name in chosen:
                content = there[name]
                if content:
                    tell(f"{name}: already there")
                else:
                    with keep(folder / f"{name}.trainings"):  # until its file is written
                        content = run(name, folder, asked[name], command, console)
                report.show(content, console)
                tell(f"Results: {folder / name}.json")
                holds = holds and all(claim["holds"] for claim in content["claims"])
    except KeyboardInterrupt:
        tell(f"Interrupted; the same command with --out {folder} continues.")
        raise
    if ALL in names:
        tell(f"Report: {report.write(folder, chosen)}")
    return holds


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """The reproductions to run, each once."""
    if not names:
        listed = "; ".join(f"{name} ({e.description})" for name, e in REPRODUCTIONS.items())
        raise UsageError(
            f"expected the name of at least one reproduction, got none. Known names: {listed}; "
            f"{ALL} (all of them, and a report)."
        )
    for name in names:
        if name not in REPRODUCTIONS and name != ALL:
            raise unknown_name("a reproduction", name, (*REPRODUCTIONS, ALL))
    return tuple(REPRODUCTIONS) if ALL in names else tuple(dict.fromkeys(names))


def on_device(text: str | None) -> AbstractContextManager:
    """A context in which everything is computed on `cpu`, `gpu`, `tpu` or, of several, `gpu:1`."""
    if text is None:
        return nullcontext()
    kind, _, number = text.partition(":")
    if kind not in DEVICES or not (number or "0").isdecimal():
        raise UsageError(
            f"expected --device to be {', '.join(DEVICES)}, or one of several as gpu:1, got "
            f"{text!r}. Leave it out for the device that JAX chooses."
        )
    import jax

    try:
        devices = jax.devices(kind)
    except RuntimeError:  # no such kind
        devices = []
    if int(number or 0) >= len(devices):
        raise UsageError(
            f"expected --device to be one that JAX sees, got {text}, and it sees "
            f"{', '.join(map(str, jax.devices()))}. Install JAX for that device, or leave "
            "--device out."
        )
    return jax.default_device(devices[int(number or 0)])


def check_data(names: Sequence[str], quick: bool) -> list[str]:
    """Lines about what stands in for absent data; the full version does without stand-ins."""
    remarks = []
    for dataset in sorted({dataset for n in names for dataset in REPRODUCTIONS[n].datasets}):
        try:
            data.find(dataset)
        except UsageError:
            if not quick:
                raise
            root, origin = data.locate(None)
            remarks.append(
                f"No prepared {dataset} in {root} ({origin}): digits stand in for it, and every "
                "picture says so."
            )
    return remarks


def finished(path: Path, asked: Mapping[str, Any]) -> Content | None:
    """The content of the file of a reproduction, if there is one, of the same question."""
    if not path.is_file():
        return None
    advice = "Choose another --out, or move that file away."
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']}, expected {SCHEMA}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"expected {path} to be a result of this version, but it cannot be understood "
            f"({type(error).__name__}: {error}). {advice}"
        ) from error
    expect_same(path, "settings", content["asked"], asked, advice)
    return content


def run(
    name: str, out: Path, asked: Mapping[str, Any], command: Sequence[str], console: Console
) -> Content:
    """Run a reproduction and write `NAME.png` and, last, `NAME.json`; returns the latter."""
    module = importlib.import_module(f".{name.replace('-', '_')}", __package__)
    version, size = ("quick", module.QUICK) if asked["quick"] else ("full", module.FULL)
    with console.status(name) as status, _messages(lambda text: status.update(f"{name}: {text}")):
        result = module.run(**size, seeds=asked["seeds"])
    result.figure.suptitle(f"{result.figure.get_suptitle()} ({version} version)", fontsize=11)
    result.figure.savefig(out / f"{name}.png", dpi=100, facecolor="white")
    content = {
        "schema": SCHEMA,
        "reproduction": name,
        "asked": asked,
        "command": command,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": results.versions(),
        "device": results.device(),
        "settings": {**_constants(module), **size, **result.settings},
        "claims": [{"statement": s, **v._asdict()} for s, v in result.claims.items()],
        "tables": [{"title": title, **table} for title, table in result.tables.items()],
        "data": results.plain(result.data, digits=4),  # enough to draw from
    }
    results.write_json(out / f"{name}.json", content)
    return results.plain(content)


@contextmanager
def _messages(show: Callable[[str], None]) -> Iterator[None]:
    """Show what the reproductions log."""
    log, handler = logging.getLogger(__package__), logging.Handler()
    handler.emit = lambda record: show(record.getMessage())
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def _constants(module: Any) -> dict[str, Any]:
    """What a module is written with, by lower-case name: its results depend on it."""
    return {
        name.lower(): value
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, int | float | tuple)
    }
