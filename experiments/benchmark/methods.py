"""What is compared, by name: baselines that are swept, peers, ours, and variations of ours.

Names need no jax; building imports it. Adding a method is adding a line to a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import unknown_name
from ..optimizer_specs import DEFAULT_RATES

if TYPE_CHECKING:
    import optax

    from ..lanes import Method

BASELINES = tuple(DEFAULT_RATES)  # swept over learning rates and schedules
PEERS = ("prodigy", "dowg", "momo_adam", "schedule_free_adamw", "mechanize")  # at their defaults
REFERENCE = "adam"  # given the average of its iterates, as ours are
OURS = ("meka", "adameka")
DIRECTIONS = ("ei-adam", "ei-lion", "ei-muon", "ei-momentum")  # with our step size
SCALED = "adameka-scaled"  # steps of another length than ours, to see whether ours is best
SCALES = (0.25, 0.5, 2.0, 4.0)
SCHEDULES = ("constant", "linear", "cosine")


def _adaptive(**constants: Any) -> Callable[[Any, int], Any]:
    """`adameka` whose trust region has other constants than its own."""
    return lambda a, steps: a.adameka(trust_region=a.adaptive_trust_region(**constants))


# Ours with one thing changed: from the module of alternatives, the parts to change, and the number
# of steps of a training to a transformation.
ABLATIONS: dict[str, Callable[[Any, int], Any]] = {
    # The trust region: another one, or its constants.
    "adameka-newton-radius": lambda a, steps: a.adameka(trust_region=a.newton_trust_region()),
    "adameka-target-0": _adaptive(target_ratio=0.0),
    "adameka-target-0.3": _adaptive(target_ratio=0.3),
    "adameka-gain-constant": _adaptive(adaptation_gain=lambda count: 0.05),
    "adameka-gain-half": _adaptive(adaptation_gain=lambda count: 1 / (count + 10)),
    "adameka-gain-double": _adaptive(adaptation_gain=lambda count: 4 / (count + 10)),
    "adameka-averaging-none": _adaptive(averaging_weight=lambda count: 1.0),
    "adameka-averaging-tenth": _adaptive(averaging_weight=lambda count: 10 / (count + 10)),
    "adameka-initial-0.1": _adaptive(initial_newton_ratio=0.1),
    "adameka-initial-1": _adaptive(initial_newton_ratio=1.0),
    "adameka-max-newton-1": _adaptive(max_newton_ratio=1.0),
    "adameka-max-newton-30": _adaptive(max_newton_ratio=30.0),
    # The curvature: measured at every step, or rarely.
    "adameka-interval-1": lambda a, steps: a.adameka(curvature_interval=1),
    "adameka-interval-50": lambda a, steps: a.adameka(curvature_interval=50),
    # The acquisition.
    "adameka-probability": lambda a, steps: a.adameka(acquisition="probability_of_improvement"),
    "adameka-decrease": lambda a, steps: a.adameka(acquisition="expected_decrease"),
    "adameka-threshold": lambda a, steps: a.adameka(acquisition=a.improvement_threshold(0.9)),
    # The horizon.
    "adameka-budget": lambda a, steps: a.adameka(
        trust_region=a.within_budget(a.adaptive_trust_region(), steps)
    ),
    "adameka-ahead-10": lambda a, steps: a.adameka(
        acquisition=a.look_ahead(10), trust_region=a.newton_trust_region()
    ),
    "ei-adam-warm-100": lambda a, steps: a.after_adam(a.warm_start(1e-3, 100, a.step())),
    "ei-adam-warm-snr": lambda a, steps: a.after_adam(
        a.warm_start(1e-3, lambda known: known["snr"] < 1, a.step())
    ),
    "ei-adam-both-ways": lambda a, steps: a.after_adam(
        a.switch_both_ways(1e-3, lambda known: known["snr"] < 1, a.step())
    ),
    # The direction, and the gain of the filter.
    "adameka-filtered": lambda a, steps: a.after_filtered_adam(a.step()),
    "meka-unfiltered": lambda a, steps: a.step(),
    "meka-newton-radius": lambda a, steps: a.meka(trust_region=a.newton_trust_region()),
    "meka-published": lambda a, steps: a.meka(
        acquisition="probability_of_improvement", trust_region=a.newton_trust_region()
    ),
    "meka-per-leaf": lambda a, steps: a.meka(covariance="per_leaf"),
    "meka-diagonal": lambda a, steps: a.meka(covariance="diagonal"),
    # Other ways to correct the predicted slope, in place of the trust region.
    "newton-claimed": lambda a, steps: a.newton_steps("claimed"),
    "newton-shrunk": lambda a, steps: a.newton_steps("shrunk"),
    "newton-regression": lambda a, steps: a.newton_steps("regression"),
    "newton-half-batch": lambda a, steps: a.newton_steps("half_batch"),
}

DEFAULT = (*BASELINES, *PEERS, *OURS, *DIRECTIONS, SCALED)
KNOWN = (*DEFAULT, *ABLATIONS)
AVERAGE = "average"  # place: a moving average of the iterates


def check(name: str) -> str:
    """Return the name.

    Raises:
      UsageError: if there is no such method.
    """
    if name not in KNOWN:
        raise unknown_name("a method", name, KNOWN)
    return name


def is_ours(name: str) -> bool:
    """Whether the method depends on our code."""
    return name not in BASELINES and name not in PEERS


def settings(name: str, rates: tuple[float, ...] = ()) -> list[dict[str, float]]:
    """The settings that a method is trained with; schedules are numbered.

    Example:
      >>> settings("sgd", (0.1,))[:2]
      [{'rate': 0.1, 'schedule': 0}, {'rate': 0.1, 'schedule': 1}]
    """
    if name in BASELINES:
        return [{"rate": rate, "schedule": s} for rate in rates for s in range(len(SCHEDULES))]
    if name == SCALED:
        return [{"scale": scale} for scale in SCALES]
    return [{}]


def default_setting(name: str) -> dict[str, float]:
    """A baseline as one uses it without thinking."""
    return {"rate": DEFAULT_RATES[name], "schedule": 0}


def build(name: str) -> Method:
    """Make the method for lanes."""
    import optax

    from ..lanes import LAST, Method

    if name in BASELINES:
        return Method(lambda setting, steps: _baseline(name, setting, steps))
    if name == "schedule_free_adamw":
        place = optax.contrib.schedule_free_eval_params
        return Method(lambda setting, steps: _peer(name), {LAST: place})
    if name in PEERS:
        return Method(lambda setting, steps: _peer(name))
    if name == SCALED:
        from .replayed import replayed

        return Method(lambda setting, steps: replayed(setting["scale"]))
    if name in ABLATIONS:
        from . import alternatives

        return with_average(Method(lambda setting, steps: ABLATIONS[name](alternatives, steps)))
    return with_average(Method(lambda setting, steps: _ours(name)))


def with_average(method: Method) -> Method:
    """The same training, evaluated at the average of the iterates as well."""
    import optax

    from ...optimizers import average_iterates, eval_params
    from ..lanes import Method

    return Method(
        lambda setting, steps: optax.chain(method.build(setting, steps), average_iterates()),
        {**method.places, AVERAGE: eval_params},
    )


def _baseline(
    kind: str, setting: Mapping[str, Any], steps: int
) -> optax.GradientTransformationExtraArgs:
    """One program for all rates and schedules."""
    import jax.numpy as jnp
    import optax

    directions = {
        "adam": optax.scale_by_adam,
        "adamw": lambda: optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(1e-4)),
        "sgd": optax.identity,
        "momentum": lambda: optax.trace(decay=0.9),
    }

    def rate(count: Any) -> Any:
        part = count / steps
        factors = jnp.stack([jnp.ones_like(part), 1 - part, 0.5 * (1 + jnp.cos(jnp.pi * part))])
        return -setting["rate"] * factors[jnp.int32(setting["schedule"])]

    return optax.with_extra_args_support(
        optax.chain(directions[kind](), optax.scale_by_schedule(rate))
    )


def _peer(name: str) -> optax.GradientTransformationExtraArgs:
    import optax

    factories = {
        "prodigy": optax.contrib.prodigy,
        "dowg": optax.contrib.dowg,
        "momo_adam": optax.contrib.momo_adam,
        "schedule_free_adamw": optax.contrib.schedule_free_adamw,
        # A base rate of 1 is what its documentation asks for.
        "mechanize": lambda: optax.contrib.mechanize(optax.adam(1.0)),
    }
    return optax.with_extra_args_support(factories[name]())


def _ours(name: str) -> optax.GradientTransformationExtraArgs:
    import optax

    from ...optimizers import adameka, meka, scale_by_expected_improvement

    if name in OURS:
        return {"meka": meka, "adameka": adameka}[name]()
    directions = {
        "ei-adam": optax.scale_by_adam,
        "ei-lion": optax.scale_by_lion,
        # Muon itself is for matrices; with the rest on Adam it is only sold as a whole.
        "ei-muon": lambda: optax.chain(optax.contrib.muon(1.0), optax.scale(-1.0)),
        "ei-momentum": lambda: optax.trace(decay=0.9),
    }
    return optax.chain(directions[name](), scale_by_expected_improvement())
