"""Parts of a stack are put in any order, and the file is the one that whole slices make."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unet.volumes.stacks import stack
from unet.volumes import Calibration, VolumeWriter, open_volume, read_volume, write_volume

NAMES = ["a.tif", "a.h5", "a.zarr", "folder"]


def parts(shape, blocks, seed=0):
    """Return (z, rows, columns) of all blocks, in an order of chance."""
    height, width = shape[-2:]
    found = [
        (z, slice(y, min(y + blocks[0], height)), slice(x, min(x + blocks[1], width)))
        for z in range(shape[0])
        for y in range(0, height, blocks[0])
        for x in range(0, width, blocks[1])
    ]
    np.random.default_rng(seed).shuffle(found)
    return found


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "int32", "bool"])
@pytest.mark.parametrize("shape", [(3, 20, 31), (3, 20, 1), (2, 3, 20, 31)])
@pytest.mark.parametrize("name", NAMES)
def test_parts_in_any_order_make_the_stack(tmp_path, name, shape, dtype):
    if name == "folder" and (len(shape) == 4 or dtype in ("float32", "int32")):
        pytest.skip("PNG holds none of these")
    values = stack(shape, "uint8") > 100 if dtype == "bool" else stack(shape, dtype)
    with VolumeWriter(tmp_path / name, shape, values.dtype, blocks=(8, 16)) as writer:
        for z, rows, columns in parts(shape, (8, 16)):
            writer.put(z, rows, columns, values[z][..., rows, columns])
    found = read_volume(tmp_path / name)
    np.testing.assert_array_equal(found != 0 if dtype == "bool" else found, values)


@pytest.mark.parametrize("name", NAMES)
def test_slices_and_parts_may_be_mixed_and_none_may_be_missing(tmp_path, name):
    values = stack((2, 20, 31))
    with pytest.raises(ValueError, match="1 of 2 slices were written"):  # noqa: SIM117
        with VolumeWriter(tmp_path / name, values.shape, values.dtype) as writer:
            writer.write(values[0])
            writer.put(1, slice(0, 20), slice(0, 30), values[1][:, :30])
    assert list(tmp_path.iterdir()) == []
    with VolumeWriter(tmp_path / name, values.shape, values.dtype) as writer:
        writer.put(1, slice(0, 20), slice(0, 30), values[1][:, :30])
        writer.write(values[0])
        writer.put(1, slice(0, 20), slice(30, 31), values[1][:, 30:])
    np.testing.assert_array_equal(read_volume(tmp_path / name), values)


@pytest.mark.parametrize(
    ("z", "rows", "columns", "shape"),
    [
        (2, slice(0, 4), slice(0, 4), (4, 4)),
        (-1, slice(0, 4), slice(0, 4), (4, 4)),
        (0, slice(0, 5), slice(0, 4), (4, 4)),
        (0, slice(-4, 0), slice(0, 4), (4, 4)),
        (0, slice(18, 22), slice(0, 4), (4, 4)),
        (0, slice(0, 4), slice(28, 32), (4, 4)),
        (0, slice(0, 4), slice(0, 4), (1, 4, 4)),
    ],
)
def test_a_part_that_does_not_fit_is_refused(tmp_path, z, rows, columns, shape):
    with pytest.raises(ValueError, match=r"does not fit into \(2, 20, 31\)"):  # noqa: SIM117
        with VolumeWriter(tmp_path / "a.tif", (2, 20, 31), np.uint8) as writer:
            writer.put(z, rows, columns, np.zeros(shape, np.uint8))


@pytest.mark.parametrize("name", NAMES)
def test_a_slice_in_parts_is_the_file_that_whole_slices_make(tmp_path, name):
    values = stack((2, 20, 31))
    write_volume(tmp_path / "whole" / name, values, blocks=(8, 16))
    with VolumeWriter(
        tmp_path / "parts" / name, values.shape, values.dtype, blocks=(8, 16)
    ) as writer:
        for z, rows, columns in parts(values.shape, (8, 16)):
            writer.put(z, rows, columns, values[z, rows, columns])
    whole, in_parts = (
        {
            file.relative_to(tmp_path / kind): file.read_bytes()
            for file in sorted((tmp_path / kind).rglob("*"))
            if file.is_file()
        }
        for kind in ("whole", "parts")
    )
    assert whole.keys() == in_parts.keys()
    if name == "a.h5":
        # Chunks lie in the order in which they came.
        assert sum(map(len, whole.values())) == sum(map(len, in_parts.values()))
    else:
        assert whole == in_parts


@pytest.mark.parametrize("dtype", ["float32", "uint32"])
@pytest.mark.parametrize("name", ["a.tif", "a.h5", "a.zarr"])
@pytest.mark.parametrize("axes", ["ZYX", "TYX", "ZCYX", "TCYX"])
def test_what_is_written_is_read_with_its_calibration(tmp_path, axes, name, dtype):
    values = stack((3, 2, 20, 31) if "C" in axes else (3, 20, 31), dtype)
    time = (1.5, "s") if axes[0] == "T" else (None, None)
    # Zarr has a spacing for its own axes alone.
    z = None if axes[0] == "T" and name == "a.zarr" else 0.05
    calibration = Calibration(axes, (z, 0.004, 0.005), "µm", *time)
    write_volume(tmp_path / name, values, calibration=calibration)
    with open_volume(tmp_path / name) as volume:
        np.testing.assert_array_equal(volume[:], values)
        assert volume.calibration == calibration
