from ..problem import batched  # noqa: F401
