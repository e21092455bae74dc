"""The contingency table: against a count pixel by pixel, whatever the numbers are."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from unet.scoring.contingency_table import contingency_table


@pytest.mark.parametrize(
    ("dtype", "largest"),
    [(bool, 1), (np.uint8, 9), (np.uint16, 65535), (np.uint32, 2**32 - 1), (np.uint64, 2**60)],
)
def test_pairs_are_counted_whatever_the_numbers_are(dtype, largest):
    random = np.random.default_rng(0)
    numbers = np.append(random.integers(0, largest, 6, endpoint=True), [0, largest]).astype(dtype)
    first, second = numbers[random.integers(0, 8, (2, 20, 30))]
    table = contingency_table(first, second)
    pairs = list(zip(table.first.tolist(), table.second.tolist()))
    assert pairs == sorted(pairs)
    counted = Counter(zip(first.ravel().tolist(), second.ravel().tolist()))
    assert dict(zip(pairs, table.pixels.tolist())) == counted
