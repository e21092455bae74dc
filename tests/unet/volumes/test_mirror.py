"""Pictures beyond their edges: by hand, and as numpy pads them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unet.volumes.mirror import mirrored


def test_a_mirror_by_hand():
    picture = np.array([[[1, 2, 3]]])
    assert mirrored(picture, 0, -5, (1, 13)).tolist() == [[[2, 1, 2, 3, 2, 1, 2, 3, 2, 1, 2, 3, 2]]]
    assert mirrored(picture, -1, 2, (3, 2)).tolist() == [[[3, 2]] * 3]


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 30), st.integers(2, 30), st.lists(st.integers(0, 70), min_size=4, max_size=4))
def test_mirror_is_that_of_numpy(height, width, pads):
    picture = np.random.default_rng(height).random((2, height, width))
    above, below, left, right = pads
    wanted = np.pad(picture, ((0, 0), (above, below), (left, right)), mode="reflect")
    tile = mirrored(picture, -above, -left, wanted.shape[1:])
    np.testing.assert_array_equal(tile, wanted)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1)])
def test_a_single_row_or_column_is_continued_as_itself(shape):
    picture = np.arange(1.0, 1 + np.prod(shape)).reshape((1,) + shape)
    long = max(shape)
    tile = mirrored(picture, -92, -92, (188, 188))[0]
    # Rows are mirrored where there are several, and equal where there is one.
    line = np.pad(picture.ravel(), (92, 188 - 92 - long), "reflect") if long > 1 else 1.0
    wanted = np.broadcast_to(line if shape[0] == 1 else np.reshape(line, (-1, 1)), (188, 188))
    np.testing.assert_array_equal(tile, wanted)
