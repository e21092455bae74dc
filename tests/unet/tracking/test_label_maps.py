"""Maps in the place of cells' numbers are refused; cells are not taken for maps."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.unet.drawn import drawn
from unet.errors import InputError
from unet.tracking.label_maps import components, refuse_maps
from unet.volumes import as_volume

CELLS = np.kron(np.arange(64).reshape(8, 8), np.ones((6, 6), int))


def test_one_number_with_several_regions_is_a_map_of_foreground():
    with pytest.raises(InputError, match=r"0 and 1 \(several regions in frame 1\), .*binary"):
        refuse_maps([drawn("1 1 0 0"), drawn("1 0 0 1")])
    with pytest.raises(InputError, match="0 and 255, instead"):
        refuse_maps([255 * drawn("1 1 0 0")])


def test_a_few_numbers_with_many_regions_are_a_map_of_classes():
    classes = np.where(CELLS % 2, 1 + CELLS // 2 % 3, 0)
    with pytest.raises(InputError, match=r"map of classes .* its 3 numbers have 10\.7 separate"):
        refuse_maps([classes])


@pytest.mark.parametrize(
    "frames",
    [
        [np.zeros((4, 4), int)] * 2,
        [drawn("1 1 0 0"), drawn("0 0 1 1")],
        # Touching at a corner is one region, and a cell may be in two pieces.
        [drawn("1 0 0", "0 1 0")],
        [drawn("1 0 1 2 2")],
        [CELLS],
        [(CELLS % 5).astype(np.float32) * 0 + CELLS],
    ],
)
def test_cells_are_none(frames):
    refuse_maps(frames)


def test_a_mask_saved_as_jpeg_is_none_of_cells():
    mask = (ndimage.zoom(CELLS % 3, 4, order=0) > 0) * np.uint8(255)
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "JPEG", quality=30)
    with pytest.raises(InputError, match=r"JPEG|as in a picture"):
        refuse_maps([np.asarray(Image.open(file))])


def test_components_of_what_is_above_a_threshold():
    frames = as_volume(np.array([[[0.2, 0.9, 0.4, 0.6, 0.0]]]), "frames")
    assert components(frames)[0].tolist() == [[1, 1, 1, 1, 0]]
    assert components(frames, 0.5)[0].tolist() == [[0, 1, 0, 2, 0]]
