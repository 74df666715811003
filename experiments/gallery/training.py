"""Train a program with each of its optimizers, in turns, and count the lines that change."""

import ast
import difflib
import inspect
import textwrap
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from ...optimizers import adameka, eval_params
from .program import Program, Step

THEIRS, ADAM, OURS = "theirs", "adam", "adameka"  # whose optimizers there are
AVERAGE = "average"  # of the iterates of ours
ROUNDS = 10  # of a training, in which the optimizers take turns: other load slows them all


class Result(NamedTuple):
    """What came of one program.

    Attributes:
      steps: how many were made.
      losses: what is judged, by optimizer and for the average of ours; a number for each seed.
      seconds: per step, by optimizer; medians over rounds and seeds.
      slowdown: time of a step with ours to that with theirs; median over rounds and seeds.
      compile_seconds: by optimizer.
      lines: how many lines change; see `changed_lines`.
    """

    steps: int
    losses: dict[str, list[float]]
    seconds: dict[str, float]
    slowdown: float
    compile_seconds: dict[str, float]
    lines: int


def train(program: Program, steps: int, seeds: int, adam: bool = True) -> Result:
    """Train with their optimizer, with ours and, if asked, with Adam's default.

    All of them begin with the same parameters and get the same batches.
    """
    contenders: dict[str, tuple[Any, Step]] = {
        THEIRS: (program.optimizer(steps), program.theirs),
        OURS: (adameka(), program.ours),
    }
    if adam:
        contenders[ADAM] = (optax.adam(1e-3), program.theirs)
    batch, judge = jax.jit(program.batch), program.jit(program.judge)
    compiled: dict[str, Any] = {}
    compile_seconds: dict[str, float] = {}
    losses: dict[str, list[float]] = {name: [] for name in (*contenders, AVERAGE)}
    times: list[dict[str, float]] = []
    for seed in range(seeds):
        for_start, for_batches = jax.random.split(jax.random.key(seed))
        carries = {name: program.start(tx, for_start) for name, (tx, _) in contenders.items()}
        keys = jax.random.split(for_batches, steps)
        if not compiled:
            for name, (tx, step) in contenders.items():
                compiled[name], compile_seconds[name] = _compile(
                    program, partial(step, tx), carries[name], batch(keys[0])
                )
        for part in np.array_split(np.arange(steps), min(ROUNDS, steps)):
            batches = [batch(keys[place]) for place in part]
            spent = {}
            for name, step in compiled.items():
                begin = time.perf_counter()
                for each in batches:
                    carries[name], _ = step(carries[name], each)
                jax.block_until_ready(jax.tree.leaves(carries[name]))
                spent[name] = (time.perf_counter() - begin) / len(part)
            times.append(spent)
        for name, carry in carries.items():
            params, state = program.parts(carry)
            losses[name].append(float(judge(params, carry)))
            if name == OURS:
                losses[AVERAGE].append(float(judge(eval_params(state, params), carry)))
    return Result(
        steps=steps,
        losses=losses,
        seconds={name: float(np.median([spent[name] for spent in times])) for name in compiled},
        slowdown=float(np.median([spent[OURS] / spent[THEIRS] for spent in times])),
        compile_seconds=compile_seconds,
        lines=len(changed_lines(program.theirs, program.ours)) + 1,  # that of the optimizer
    )


def _compile(program: Program, step: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    begin = time.perf_counter()
    compiled = program.jit(step).lower(*args).compile()
    return compiled, time.perf_counter() - begin


def changed_lines(theirs: Callable[..., Any], ours: Callable[..., Any]) -> list[str]:
    """Lines of our step that theirs does not have, however both are laid out.

    Example:
      >>> def theirs(tx, params):
      ...     return params
      >>> def ours(tx, params):
      ...     return params + 1
      >>> changed_lines(theirs, ours)
      ['return params + 1']
    """
    lines = difflib.ndiff(_statements(theirs), _statements(ours))
    return [line[2:].strip() for line in lines if line.startswith("+ ")]


def difference(theirs: Callable[..., Any], ours: Callable[..., Any]) -> str:
    """Their step and ours as a unified difference."""
    lines = difflib.unified_diff(_statements(theirs), _statements(ours), lineterm="", n=100)
    return "\n".join(list(lines)[3:])  # without the names of files, of which there are none


def _statements(step: Callable[..., Any]) -> list[str]:
    """The lines of a function's body, one for each statement and without comments."""
    source = textwrap.dedent(inspect.getsource(step))
    return ast.unparse(ast.parse(source)).splitlines()[1:]
