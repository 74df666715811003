from ..problem import first, measures  # noqa: F401
