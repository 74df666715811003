"""Doing units of work: training all settings and seeds of one method on one cell."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from .. import problems
from ..lanes import LAST, Budget, Recorded, compile_lanes
from ..problems.evaluation import first
from . import methods, suite, timing
from .options import Options
from .store import Store, Unit
from .suite import Cell
from .summary import best_setting

Progress = Callable[[Unit, float], None]


def units(options: Options) -> list[Unit]:
    """Everything to do, cell by cell."""
    return [Unit(cell, method) for cell in options.cells for method in options.methods]


def work(options: Options, store: Store, progress: Progress, done: Callable[[Unit], None]) -> None:
    """Do every unit that is neither finished nor claimed by another process.

    Args:
      options: the benchmark.
      store: its folder.
      progress: called with a unit and the part of it that is done.
      done: called with each unit that this process has finished.
    """
    bench = _Bench(options)
    for unit in units(options):
        if store.has(unit):
            continue
        with store.claim(unit) as mine:
            if mine:
                content = bench.do(unit, lambda part, unit=unit: progress(unit, part))
                store.write(unit, content)
                done(unit)


class _Bench:
    """What stays from unit to unit: the problem of the current cell, and the clock of its Adam."""

    def __init__(self, options: Options):
        self._options = options
        self._profile = suite.PROFILES[options.profile]
        self._cell: Cell | None = None

    def do(self, unit: Unit, progress: Callable[[float], None]) -> dict[str, Any]:
        """Train and time; returns the content of the unit's file."""
        progress(0.0)
        begin = time.perf_counter()
        self._enter(unit.cell)
        runs = self._train(unit, progress)
        trained = time.perf_counter()
        ours, adam = timing.in_turns(
            timing.clock(self._problem, methods.build(unit.method), *self._timed(unit)),
            self._adam,
            self._profile.timing_rounds,
        )
        return {
            "problem": unit.cell.problem,
            "batch_size": unit.cell.batch_size,
            "steps": unit.cell.steps,
            "method": unit.method,
            "runs": runs,
            "timing": {
                "training_seconds": trained - begin,
                "step_seconds": ours,
                "adam_step_seconds": adam,
            },
        }

    def _enter(self, cell: Cell) -> None:
        if cell == self._cell:
            return
        source = problems.Source(self._options.data_dir)
        whole = problems.load(cell.problem, source)
        part = first(whole.data, cell.examples or whole.examples)
        self._problem = dataclasses.replace(whole, data=part)
        adam, setting = methods.build("adam"), methods.default_setting("adam")
        self._adam = timing.clock(self._problem, adam, setting, cell.batch_size)
        self._cell = cell

    def _timed(self, unit: Unit) -> tuple[dict[str, float], int]:
        return self._settings(unit.method)[0], unit.cell.batch_size

    def _settings(self, method: str) -> list[dict[str, float]]:
        if method not in methods.BASELINES:
            return methods.settings(method)
        grid = methods.settings(method, suite.rates(self._profile, method))
        default = methods.default_setting(method)
        return grid if default in grid else [*grid, default]  # a short grid may leave it out

    def _train(self, unit: Unit, progress: Callable[[float], None]) -> list[dict[str, Any]]:
        budget = Budget(
            unit.cell.steps, unit.cell.batch_size, self._profile.looks, self._profile.judged
        )
        method = methods.build(unit.method)
        if unit.method == methods.REFERENCE:
            method = methods.with_average(method)
        train = compile_lanes(self._problem, method, budget)
        settings, seeds = self._settings(unit.method), list(range(self._options.seeds))
        if unit.method not in methods.BASELINES:
            return _runs(train(settings, seeds, progress), settings, seeds)
        tried = seeds[: self._options.sweep_seeds]
        lanes = len(settings) * len(tried)
        chosen_lanes = (1 + len(method.places)) * (len(seeds) - len(tried))
        share = lanes / (lanes + chosen_lanes)
        swept = _runs(train(settings, tried, lambda part: progress(share * part)), settings, tried)
        chosen = [methods.default_setting(unit.method)]
        for place in method.places:
            best = best_setting(swept, place)
            if best not in chosen:
                chosen.append(best)
        rest = seeds[len(tried) :]
        if not rest:
            return swept
        more = train(chosen, rest, lambda part: progress(share + (1 - share) * part))
        return swept + _runs(more, chosen, rest)


def _runs(
    recorded: Recorded, settings: list[dict[str, float]], seeds: list[int]
) -> list[dict[str, Any]]:
    """One record per lane and place."""
    lanes = [(setting, seed) for setting in settings for seed in seeds]
    return [
        {
            "setting": setting,
            "seed": seed,
            "place": place,
            "looks": recorded.looks,
            "measures": {name: values[lane] for name, values in measured.items()},
            "gauges": {name: values[lane] for name, values in recorded.gauges.items()}
            if place == LAST
            else {},
        }
        for lane, (setting, seed) in enumerate(lanes)
        for place, measured in recorded.measures.items()
    ]
