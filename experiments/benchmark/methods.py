"""What is compared, by name: baselines that are swept, peers, ours, and variations of ours.

Names need no jax; building imports it. Adding a method is adding a line to a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import unknown_name
from ..optimizer_specs import DEFAULT_RATES

if TYPE_CHECKING:
    import optax

    from ..lanes import Method

BASELINES = tuple(DEFAULT_RATES)  # swept over learning rates and schedules
PEERS = ("prodigy", "dowg", "momo_adam", "schedule_free_adamw", "mechanize")  # at their defaults
OURS = ("meka", "adameka")
DIRECTIONS = ("ei-adam", "ei-lion", "ei-muon", "ei-momentum")  # with our step size
SCALED = "adameka-scaled"  # steps of another length than ours, to see whether ours is best
SCALES = (0.25, 0.5, 2.0, 4.0)
SCHEDULES = ("constant", "linear", "cosine")

# Name of an ablation: what it is an ablation of, and the arguments that make it one.
ABLATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "adameka-uncalibrated": ("adameka", {"calibrate": False}),
    "adameka-probability": ("adameka", {"acquisition": "probability_of_improvement"}),
    "adameka-decrease": ("adameka", {"acquisition": "expected_decrease"}),
    "adameka-decay-0.9": ("adameka", {"decay": 0.9}),
    "adameka-decay-0.999": ("adameka", {"decay": 0.999}),
    "adameka-filtered": ("ei-filtered-adam", {}),
    "meka-unfiltered": ("ei-gradient", {}),
    "meka-uncalibrated": ("meka", {"calibrate": False}),
    "meka-per-leaf": ("meka", {"covariance": "per_leaf"}),
    "meka-diagonal": ("meka", {"covariance": "diagonal"}),
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

    from ...optimizers import average_iterates, eval_params
    from ..lanes import LAST, Method, at_last

    if name in BASELINES:
        return Method(lambda setting, steps: _baseline(name, setting, steps))
    if name == "schedule_free_adamw":
        place = optax.contrib.schedule_free_eval_params
        return Method(lambda setting, steps: _peer(name), {LAST: place})
    if name in PEERS:
        return Method(lambda setting, steps: _peer(name))
    if name == SCALED:
        return Method(
            lambda setting, steps: optax.chain(_ours("adameka", {}), optax.scale(setting["scale"]))
        )
    origin, arguments = ABLATIONS.get(name, (name, {}))
    return Method(
        lambda setting, steps: optax.chain(_ours(origin, arguments), average_iterates()),
        {LAST: at_last, AVERAGE: eval_params},
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


def _ours(name: str, arguments: Mapping[str, Any]) -> optax.GradientTransformationExtraArgs:
    import optax

    from ...optimizers import (
        adameka,
        meka,
        scale_by_expected_improvement,
        scale_by_kalman_filter,
    )

    if name in OURS:
        return {"meka": meka, "adameka": adameka}[name](**arguments)
    directions = {
        "ei-gradient": optax.identity,
        "ei-adam": optax.scale_by_adam,
        "ei-lion": optax.scale_by_lion,
        # Muon itself is for matrices; with the rest on Adam it is only sold as a whole.
        "ei-muon": lambda: optax.chain(optax.contrib.muon(1.0), optax.scale(-1.0)),
        "ei-momentum": lambda: optax.trace(decay=0.9),
        # The filtered gradient in place of the momentum.
        "ei-filtered-adam": lambda: optax.chain(
            scale_by_kalman_filter(), optax.scale_by_adam(b1=0)
        ),
    }
    return optax.chain(directions[name](), scale_by_expected_improvement(**arguments))
