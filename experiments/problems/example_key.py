from ..problem import example_key as key_of  # noqa: F401
