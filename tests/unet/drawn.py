"""Small label images, written out in the tests that use them."""

from __future__ import annotations

import numpy as np


def drawn_cells(*rows: str) -> np.ndarray:
    """Return True where a character is #: `drawn_cells("##.", "...")`."""
    return np.array([list(row) for row in rows]) == "#"


def drawn(*rows: str) -> np.ndarray:
    """Return the digits, 0 for every dot: `drawn("11.2", "11.2")`; spaces do not count."""
    return np.array([[int(c) for c in row.replace(".", "0").replace(" ", "")] for row in rows])
