"""Which types the files of a segmentation are of."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from unet.segmentation.write import SegmentationFiles, stored_types


@pytest.mark.parametrize(
    ("size", "asked", "wanted"),
    [
        ((512, 512), None, "uint16"),
        ((8192, 8192), None, "uint16"),
        ((8192, 8193), None, "uint32"),
        ((20_000, 20_000), "uint16", "uint16"),
        ((512, 512), "uint32", "uint32"),
    ],
)
def test_cells_of_large_slices_have_numbers_enough(size, asked, wanted):
    files = SegmentationFiles(instances=Path("cells.tif"), instance_dtype=asked)
    plan = SimpleNamespace(size=size, classes=2)
    assert stored_types(files, plan) == {"instances": wanted}
