from ..registry import PROBLEMS, adopt, find, load  # noqa: F401
from ..registry import ProblemEntry as Entry  # noqa: F401
