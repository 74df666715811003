"""Reproductions of results by name, each with claims that are checked.

Adding one is adding a file and a row. The file has `FULL` and `QUICK`, the arguments of its
`run(..., *, seeds) -> Reproduction`; importing this module imports none of them.
"""

from dataclasses import dataclass

__all__ = ["ALL", "REPRODUCTIONS", "Entry"]

ALL = "all"


@dataclass(frozen=True)
class Entry:
    """What is known of a reproduction before anything heavy is imported.

    Attributes:
      description: one line.
      datasets: prepared datasets it reads; its quick version takes digits where they are absent.
      seeds: default number of repetitions.
      quick_seeds: that of the quick version.
    """

    description: str
    datasets: tuple[str, ...] = ()
    seeds: int = 10
    quick_seeds: int = 3


REPRODUCTIONS = {
    "trajectories": Entry("paths in two dimensions: the filtered one stays calm"),
    "noisy-quadratic": Entry("excess loss of the filter falls as 1/t where SGD stalls"),
    "acquisitions": Entry("which step each acquisition function chooses, and why"),
    "step-scaling": Entry(
        "multiples of the chosen steps: is the chosen one best?", ("mnist", "cifar10")
    ),
    "gradient-error": Entry(
        "distance of batch and filter to the true gradient; is the stated variance right?",
        ("cifar10",),
    ),
    "edge": Entry("multiples of the Newton step, sharpness, and noise"),
    "covariance": Entry("structures and constants of the filter", ("mnist",)),
    "cost": Entry("time of a step next to SGD's", ("mnist", "cifar10")),
    "switch": Entry("from fixed to adaptive steps at several times", ("cifar10",)),
    "baselines": Entry(
        "tuned SGD, momentum and Adam against the published rule and ours", ("mnist", "cifar10")
    ),
    "envelope": Entry(
        "steps that the best of all settings of Adam needs for what ours reaches untuned",
        ("mnist",),
        seeds=2,
        quick_seeds=1,
    ),
    "deepobs": Entry("ours untuned against the tuned baselines of DeepOBS", ("mnist",)),
    "ode-tradeoff": Entry(
        "loss of regularized neural ODEs against evaluations of the solver",
        seeds=3,
        quick_seeds=1,
    ),
    "long-run": Entry(
        "200,000 steps: do uncertainties, counters, memory or speed drift?", seeds=1, quick_seeds=1
    ),
}
