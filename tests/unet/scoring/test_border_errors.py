"""Wrong pixels near borders and away from them, against a naive search."""

from __future__ import annotations

import numpy as np
import pytest

from unet.scoring.border_errors import border_errors


@pytest.mark.parametrize("near", [1.0, 2.0, 3.2])
def test_wrong_pixels_are_parted_by_the_distance_to_the_other_class(near):
    random = np.random.default_rng(3)
    truth = np.kron(random.random((2, 4, 5)) > 0.5, np.ones((1, 6, 6))) > 0
    found = truth ^ (random.random(truth.shape) < 0.2)
    counts = {True: [], False: []}
    for z, y, x in np.ndindex(truth.shape):
        others = np.argwhere(truth[z] != truth[z, y, x])
        is_near = bool((np.hypot(*(others - (y, x)).T) <= near).any())
        counts[is_near].append(truth[z, y, x] != found[z, y, x])
    wanted = [np.mean(counts[True]), np.mean(counts[False])]
    np.testing.assert_allclose(border_errors(truth, found, near), wanted)


def test_a_slice_of_one_class_has_no_border():
    near, far = border_errors(np.ones((1, 4, 4), bool), np.zeros((1, 4, 4), bool))
    assert np.isnan(near)
    assert far == 1
