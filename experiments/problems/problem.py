from ..problem import Problem, PyTree, Report, Source  # noqa: F401
