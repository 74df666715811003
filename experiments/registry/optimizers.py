"""Optimizers by name: adding one, or an ablation, is adding a row here.

Importing this module imports no jax: the command line looks names up before anything heavy.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ..errors import UsageError, unknown_name

if TYPE_CHECKING:
    import optax

Group = Literal["baseline", "learning_rate_free", "ours", "direction", "scaled", "ablation"]
Setting = Mapping[str, float]
SCHEDULES = ("constant", "linear", "cosine")


@dataclass(frozen=True, eq=False)  # equal is identical: functions say nothing about equality
class Optimizer:
    """An optimizer as experiments need it; all of them are trained alike.

    Attributes:
      name: in tables, files and the command line.
      build: `(setting, steps) -> transformation`; the numbers of the setting may be traced, the
        number of steps of the training may not.
      group: what it is in a comparison: a swept `baseline`; `learning_rate_free`, what others have
        proposed; `ours`; `direction`, our step size on another direction; `scaled`, our step size
        multiplied; `ablation`, ours with one thing changed.
      settings: to train with, where a benchmark sweeps.
      default: the setting of who does not tune.
      averaged: train with a moving average of the iterates, and evaluate there as well.
      eval_params: returns `(state, params) -> params` to evaluate at in place of the iterate.
      description: one line.
    """

    name: str
    build: Callable[[Mapping[str, Any], int], optax.GradientTransformationExtraArgs]
    group: Group = "ours"
    settings: tuple[Setting, ...] = ({},)
    default: Setting = field(default_factory=dict)
    averaged: bool = False
    eval_params: Callable[[], Callable[[Any, Any], Any]] | None = None
    description: str = ""

    def label(self, setting: Setting) -> str:
        """Name in tables, figures and files, for example `adam:0.001`."""
        if "learning_rate" not in setting:
            return " ".join([self.name, *(f"× {value:g}" for value in setting.values())])
        schedule = SCHEDULES[int(setting.get("schedule", 0))]
        suffix = "" if schedule == "constant" else f" {schedule}"
        return f"{self.name}:{setting['learning_rate']:g}{suffix}"


def _baseline(
    name: str, direction: Callable[[Any], Any], default: float, rates: tuple[float, ...], words: str
) -> Optimizer:
    """A direction, swept over learning rates and schedules; the rate lives in the setting."""

    def build(setting: Mapping[str, Any], steps: int) -> optax.GradientTransformationExtraArgs:
        from .. import variants

        rate, schedule = setting["learning_rate"], setting.get("schedule", 0)
        return variants.scheduled(direction(variants), rate, schedule, steps)

    settings = [
        {"learning_rate": rate, "schedule": schedule}
        for rate in rates
        for schedule in range(len(SCHEDULES))
    ]
    return Optimizer(
        name=name,
        build=build,
        group="baseline",
        settings=tuple(settings),
        default={"learning_rate": default, "schedule": 0},
        averaged=name == "adam",  # the reference has what ours have
        description=words,
    )


def _other(name: str, make: Callable[..., Any], words: str, **options: Any) -> Optimizer:
    """What others have proposed, at its own defaults."""
    return Optimizer(name, _build(make), "learning_rate_free", description=words, **options)


def _own(name: str, group: Group, make: Callable[..., Any], words: str = "") -> Optimizer:
    """One of ours, which has no setting."""
    return Optimizer(name, _build(make), group, averaged=True, description=words)


def _build(make: Callable[..., Any]) -> Callable[[Mapping[str, Any], int], Any]:
    """`Optimizer.build` of `make(variants)`, or of `make(variants, steps)`."""
    arguments = len(inspect.signature(make).parameters)

    def build(setting: Mapping[str, Any], steps: int) -> optax.GradientTransformationExtraArgs:
        from .. import variants

        return variants.optax.with_extra_args_support(make(*(variants, steps)[:arguments]))

    return build


def _along(name: str, make: Callable[[Any], Any], words: str) -> Optimizer:
    """Our step size on another direction."""
    return _own(
        name,
        "direction",
        lambda v: v.optax.chain(make(v), v.scale_by_expected_improvement()),
        words,
    )


def ablation(name: str, make: Callable[..., Any]) -> Optimizer:
    """Ours with one thing changed."""
    return _own(name, "ablation", make)


def _region(name: str, **constants: Any) -> Optimizer:
    """`adameka` whose trust region has other constants than its own."""
    return ablation(
        f"adameka-{name}",
        lambda v: v.adameka(trust_region=v.adaptive_trust_region(**constants)),
    )


def _after_adam(v: Any, step: Any) -> Any:
    return v.optax.chain(v.optax.scale_by_adam(), step)


def _scaled(setting: Mapping[str, Any], steps: int) -> optax.GradientTransformationExtraArgs:
    from .. import variants

    return variants.replayed(setting["scale"])


def _schedule_free_params() -> Callable[[Any, Any], Any]:
    from optax.contrib import schedule_free_eval_params

    return schedule_free_eval_params


_ADAM_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0)
_ROWS = (
    # Baselines, with the rates that a sweep begins with or chooses from.
    _baseline(
        "adam", lambda v: v.optax.scale_by_adam(),
        1e-3, _ADAM_RATES, "Adam",
    ),
    _baseline(
        "adamw",
        lambda v: v.optax.chain(v.optax.scale_by_adam(), v.optax.add_decayed_weights(1e-4)),
        1e-3, _ADAM_RATES, "Adam with weight decay 1e-4",
    ),
    _baseline(
        "sgd", lambda v: v.optax.identity(),
        0.1, (3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0), "stochastic gradient descent",
    ),
    _baseline(
        "momentum", lambda v: v.optax.trace(decay=0.9),
        0.1, (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0), "SGD with momentum 0.9",
    ),
    # What others have proposed against tuning.
    _other("prodigy", lambda v: v.contrib.prodigy(), "Prodigy"),
    _other("dowg", lambda v: v.contrib.dowg(), "DoWG"),
    _other("momo_adam", lambda v: v.contrib.momo_adam(), "MoMo on Adam"),
    _other(
        "schedule_free_adamw", lambda v: v.contrib.schedule_free_adamw(),
        "schedule-free AdamW", eval_params=_schedule_free_params,
    ),
    _other(
        "schedule_free_plus", lambda v: v.schedule_free_plus(),
        "ScheduleFree+", eval_params=lambda: lambda state, params: state.x,
    ),
    # The settings with which AlgoPerf's self-tuning winner and its baseline were entered.
    _other(
        "schedule_free_adamw_v2",
        lambda v, steps: v.contrib.schedule_free_adamw(
            2.5e-3, b2=0.99552, weight_decay=0.0812, warmup_steps=max(1, round(0.015 * steps))
        ),
        "schedule-free AdamW as AlgoPerf's winner", eval_params=_schedule_free_params,
    ),
    _other(
        "nadamw",
        lambda v, steps: v.optax.nadamw(
            v.optax.warmup_cosine_decay_schedule(
                0.0, 1.7486e-3, max(1, round(0.02 * steps)), max(2, steps)
            ),
            b1=0.93266, b2=0.99552, weight_decay=0.0812,
        ),
        "NAdamW as AlgoPerf's baseline, which knows the number of steps",
    ),
    # A base rate of 1 is what its documentation asks for.
    _other("mechanize", lambda v: v.contrib.mechanize(v.optax.adam(1.0)), "Mechanic on Adam"),
    # Ours.
    _own("meka", "ours", lambda v: v.meka(), "steps along the filtered gradient"),
    _own("adameka", "ours", lambda v: v.adameka(), "steps along Adam's direction"),
    _along("ei-adam", lambda v: v.optax.scale_by_adam(), "our step size on optax's Adam"),
    _along("ei-lion", lambda v: v.optax.scale_by_lion(), "our step size on Lion"),
    # Muon itself is for matrices; with the rest on Adam it is only sold as a whole.
    _along(
        "ei-muon", lambda v: v.optax.chain(v.contrib.muon(1.0), v.optax.scale(-1.0)),
        "our step size on Muon",
    ),
    _along("ei-momentum", lambda v: v.optax.trace(decay=0.9), "our step size on momentum"),
    # Steps of another length than ours, to see whether ours is best.
    Optimizer(
        "adameka-scaled", _scaled, "scaled",
        tuple({"scale": scale} for scale in (0.25, 0.5, 2.0, 4.0)), {"scale": 0.5},
        description="steps of adameka, multiplied",
    ),
    # The trust region: another one, or its constants.
    ablation(
        "adameka-newton-radius",
        lambda v: v.adameka("expected_improvement", trust_region=v.newton_trust_region()),
    ),
    _region("least-0", least_ratio=0.0),
    _region("least-below", least_ratio=-0.2),
    _region("most-0.5", most_ratio=0.5),  # the edge, never over it
    _region("most-1.5", most_ratio=1.5),
    _region("gain-half", adaptation_gain=lambda count: 2.5 / (count + 50)),
    _region("gain-double", adaptation_gain=lambda count: 10 / (count + 50)),
    _region("averaging-none", averaging_weight=lambda count: 1.0),
    _region("averaging-half", averaging_weight=lambda count: 25 / (count + 25)),
    _region("averaging-double", averaging_weight=lambda count: 100 / (count + 100)),
    _region("initial-0.2", initial_newton_ratio=0.2),
    _region("initial-0.8", initial_newton_ratio=0.8),
    _region("max-newton-1", max_newton_ratio=1.0),
    _region("max-newton-30", max_newton_ratio=30.0),
    # The averages say nothing.
    ablation("adameka-deaf", lambda v: v.adameka(trust_region=v.deaf(v.adaptive_trust_region()))),
    # Losses without examples: their mean alone, which has no variance.
    ablation("adameka-scalar", lambda v: v.of_mean_loss(v.adameka())),
    # The curvature: measured at every step, or rarely.
    ablation("adameka-interval-1", lambda v: v.adameka(curvature_interval=1)),
    ablation("adameka-interval-50", lambda v: v.adameka(curvature_interval=50)),
    # The acquisition.
    ablation("adameka-improvement", lambda v: v.adameka(acquisition="expected_improvement")),
    ablation("meka-end", lambda v: v.meka(acquisition=None)),
    ablation(
        "adameka-probability", lambda v: v.adameka(acquisition="probability_of_improvement")
    ),
    ablation("adameka-decrease", lambda v: v.adameka(acquisition="expected_decrease")),
    ablation("adameka-threshold", lambda v: v.adameka(acquisition=v.improvement_threshold(0.9))),
    # The horizon.
    ablation(
        "adameka-budget",
        lambda v, steps: v.adameka(trust_region=v.within_budget(v.adaptive_trust_region(), steps)),
    ),
    ablation(
        "adameka-ahead-10",
        lambda v: v.adameka(acquisition=v.look_ahead(10), trust_region=v.newton_trust_region()),
    ),
    ablation(
        "ei-adam-warm-100",
        lambda v: _after_adam(v, v.warm_start(1e-3, 100, v.scale_by_expected_improvement())),
    ),
    ablation(
        "ei-adam-warm-snr",
        lambda v: _after_adam(
            v, v.warm_start(1e-3, lambda m: m["snr"] < 1, v.scale_by_expected_improvement())
        ),
    ),
    ablation(
        "ei-adam-both-ways",
        lambda v: _after_adam(
            v, v.switch_both_ways(1e-3, lambda m: m["snr"] < 1, v.scale_by_expected_improvement())
        ),
    ),
    # The direction, and the gain of the filter.
    ablation(
        "adameka-filtered",
        lambda v: v.optax.chain(
            v.scale_by_kalman_filter(),
            v.optax.scale_by_adam(b1=0),
            v.scale_by_expected_improvement(),
        ),
    ),
    ablation("meka-unfiltered", lambda v: v.scale_by_expected_improvement()),
    ablation("meka-newton-radius", lambda v: v.meka(trust_region=v.newton_trust_region())),
    ablation(
        "meka-published",
        lambda v: v.meka(
            acquisition="probability_of_improvement", trust_region=v.newton_trust_region()
        ),
    ),
    ablation("meka-per-leaf", lambda v: v.meka(covariance="per_leaf")),
    ablation("meka-diagonal", lambda v: v.meka(covariance="diagonal")),
    # Other ways to correct the predicted slope, in place of the trust region.
    ablation("newton-claimed", lambda v: v.newton_steps("claimed")),
    ablation("newton-shrunk", lambda v: v.newton_steps("shrunk")),
    ablation("newton-regression", lambda v: v.newton_steps("regression")),
    ablation("newton-half-batch", lambda v: v.newton_steps("half_batch")),
)  # fmt: skip
OPTIMIZERS: dict[str, Optimizer] = {row.name: row for row in _ROWS}


def group(*names: Group) -> tuple[Optimizer, ...]:
    """The optimizers of some groups, in the order of the registry."""
    return tuple(row for row in OPTIMIZERS.values() if row.group in names)


def find_optimizer(name: str) -> Optimizer:
    """Look up an optimizer.

    Raises:
      UsageError: if there is none of that name.
    """
    if name not in OPTIMIZERS:
        raise unknown_name("an optimizer", name, OPTIMIZERS)
    return OPTIMIZERS[name]


def parse(text: str) -> tuple[Optimizer, Setting]:
    """Read `name` or, of a baseline, `name:learning_rate`.

    Args:
      text: for example `meka`, `adam`, `sgd:0.1`; without a rate a baseline gets its default.

    Raises:
      UsageError: for an unknown name, a rate that is not a positive number, or a rate given to an
        optimizer that takes none.

    Example:
      >>> optimizer, setting = parse("adam:1e-2")
      >>> optimizer.label(setting)
      'adam:0.01'
    """
    name, colon, rate = text.partition(":")
    optimizer = find_optimizer(name)
    if not colon:
        return optimizer, optimizer.default
    if optimizer.group != "baseline":
        raise UsageError(
            f"expected {name!r} without a learning rate, because it finds its own step size, "
            f"got {text!r}. Write --optimizers {name}."
        )
    return optimizer, {**optimizer.default, "learning_rate": _rate(text, rate)}


def parse_all(texts: Iterable[str]) -> dict[str, tuple[Optimizer, Setting]]:
    """Parse each text, by label, keeping the order and dropping repetitions."""
    return {
        optimizer.label(setting): (optimizer, setting) for optimizer, setting in map(parse, texts)
    }


def _rate(text: str, rate: str) -> float:
    try:
        value = float(rate)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise UsageError(
            f"expected a positive number as the learning rate after the colon, got {text!r}. "
            f"Write for example {text.partition(':')[0]}:1e-3."
        )
    return value
