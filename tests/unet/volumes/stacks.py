"""A stack of noise, and what a file that is refused says."""

from __future__ import annotations

import numpy as np
import pytest

from unet.errors import InputError
from unet.volumes import open_volume


def stack(shape=(5, 20, 31), dtype="uint8", seed=0):
    values = np.random.default_rng(seed).uniform(0, 250, shape)
    return values.astype(dtype)


def refused(path, message=None, **options):
    with pytest.raises(InputError, match=message) as caught, open_volume(path, **options) as volume:
        volume[:]
    assert str(path).split(":")[0] in str(caught.value)
    assert "\n" not in str(caught.value)
