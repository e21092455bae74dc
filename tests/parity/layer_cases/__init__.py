"""Random cases of every layer type: shapes, parameters, axes, edge sizes, in place, loss weights.

Each function draws one case from a random generator, so that a case is a function of its type and
its number alone.
"""

from tests.parity.layer_cases import elementwise, losses, products, shapes  # noqa: F401
from tests.parity.layer_cases.draw import CASES, Draw

__all__ = ["CASES", "Draw"]
