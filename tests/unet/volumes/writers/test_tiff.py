"""TIFF is opened, calibrated, by ImageJ and by tifffile's parsers of ImageJ and of OME."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.unet.volumes.stacks import stack
from unet.volumes import Calibration, VolumeWriter, write_volume

IMAGEJ = Path("/usr/share/java/ij.jar")
NOTE = {"weights": "sha256:abc", "tile": [388, 388]}
OF_SPACE = Calibration("ZYX", (0.05, 0.004, 0.005), "µm")
OF_TIME = Calibration("TYX", (0.05, 0.004, 0.005), "µm", 1.5, "min")
OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"


def read_with_imagej(path: Path) -> list[str]:
    """Return the lines of ReadWithImageJ.java, which Debian's ImageJ runs without a screen."""
    if not IMAGEJ.exists() or shutil.which("java") is None:
        pytest.skip("ImageJ is not installed (apt-get install imagej default-jdk-headless)")
    program = Path(__file__).parent / "ReadWithImageJ.java"
    command = ["java", "-Djava.awt.headless=true", "-Dfile.encoding=UTF-8", "-cp", str(IMAGEJ)]
    run = subprocess.run(
        [*command, str(program), str(path)],
        capture_output=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        check=False,
    )
    errors = run.stderr.decode()
    if "jdk.compiler" in errors:
        pytest.skip("Java has no compiler (apt-get install default-jdk-headless)")
    assert run.returncode == 0, errors
    return run.stdout.decode().splitlines()


def test_imagej_reads_space_and_provenance(tmp_path):
    values = stack((3, 20, 31), "uint16")
    write_volume(tmp_path / "a.tif", values, calibration=OF_SPACE, note=NOTE)
    sizes, form, calibration, last, *info = read_with_imagej(tmp_path / "a.tif")
    assert sizes == "1 3 1"
    assert form == "31 20 16"
    assert calibration == "0.005 0.004 0.05 µm 0.0"
    assert [float(value) for value in last.split()] == values[:, -1, -1].tolist()
    assert json.loads("".join(info)) == NOTE


def test_imagej_reads_time(tmp_path):
    write_volume(tmp_path / "a.tif", stack((2, 20, 31), "float32"), calibration=OF_TIME)
    sizes, form, calibration, *_ = read_with_imagej(tmp_path / "a.tif")
    assert sizes == "1 1 2"
    assert form == "31 20 32"
    assert calibration == "0.005 0.004 0.05 µm 90.0"


def test_imagej_reads_channels_of_slices(tmp_path):
    values = stack((3, 2, 20, 31), "uint8")
    calibration = Calibration("ZCYX", (50, 4, 4), "nm")
    write_volume(tmp_path / "a.tif", values, calibration=calibration)
    sizes, form, spacing, last, *_ = read_with_imagej(tmp_path / "a.tif")
    assert sizes == "2 3 1"
    assert form == "31 20 8"
    assert spacing == "4.0 4.0 50.0 nm 0.0"
    assert [float(value) for value in last.split()] == values[:, :, -1, -1].ravel().tolist()


def test_imagej_reads_the_pixels_of_an_ome_tiff(tmp_path):
    values = stack((3, 20, 31), "uint32")
    write_volume(tmp_path / "a.tif", values, calibration=OF_SPACE)
    sizes, form, _, last, *_ = read_with_imagej(tmp_path / "a.tif")
    assert sizes == "1 3 1"
    assert form == "31 20 32"
    assert [float(value) for value in last.split()] == values[:, -1, -1].tolist()


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint32", "float64"])
@pytest.mark.parametrize(
    ("axes", "shape"), [("ZYX", (3, 20, 31)), ("ZCYX", (3, 2, 20, 31)), ("TCYX", (3, 2, 20, 31))]
)
def test_types_that_imagej_lacks_are_ome(tmp_path, dtype, axes, shape):
    values = stack(shape).astype(dtype)
    calibration = Calibration(axes, (50.0, 4.0, 5.0), "µm", 1.5, "min")
    write_volume(tmp_path / "a.tif", values, calibration=calibration, note=NOTE)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.is_ome
        assert not tiff.is_imagej
        series = tiff.series[0]
        assert (series.axes, series.shape, series.dtype) == (axes, shape, dtype)
        np.testing.assert_array_equal(series.asarray(), values)
        image = ElementTree.fromstring(tiff.ome_metadata.encode()).find(f"{OME}Image")
    pixels = image.find(f"{OME}Pixels").attrib
    assert {key: pixels[key] for key in pixels if "Physical" in key or "Time" in key} == {
        "PhysicalSizeX": "5.0",
        "PhysicalSizeY": "4.0",
        "PhysicalSizeZ": "50.0",
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeYUnit": "µm",
        "PhysicalSizeZUnit": "µm",
        "TimeIncrement": "1.5",
        "TimeIncrementUnit": "min",
    }
    assert json.loads(image.find(f"{OME}Description").text) == NOTE


def test_bigtiff_is_ome_and_its_parts_lie_beyond_4_gib(tmp_path):
    shape = (4300, 1000, 1000)
    part = stack((8, 16))
    with VolumeWriter(tmp_path / "a.tif", shape, np.uint8, calibration=OF_SPACE) as writer:
        # What was not put stays a hole in the file: nothing of it is on the disk.
        writer.written = shape[0]
        writer.put(4299, slice(992, 1000), slice(984, 1000), part)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.is_bigtiff
        assert tiff.is_ome
        assert tiff.series[0].shape == shape
        assert 'PhysicalSizeZ="0.05"' in tiff.ome_metadata
        last = tiff.pages[4299].asarray()
    np.testing.assert_array_equal(last[992:, 984:], part)
    assert not last[:992].any()
    assert not last[:, :984].any()


@pytest.mark.parametrize("dtype", ["uint8", "uint32", "uint64"])
def test_the_same_stack_is_the_same_file(tmp_path, dtype):
    for folder in ("one", "two"):
        write_volume(tmp_path / folder / "a.tif", stack().astype(dtype), note=NOTE)
    one, two = ((tmp_path / folder / "a.tif").read_bytes() for folder in ("one", "two"))
    assert one == two


def test_what_is_not_known_is_not_written(tmp_path):
    write_volume(tmp_path / "a.tif", stack(), calibration=Calibration(pixel_size=(None, 4, 4)))
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        known = tiff.imagej_metadata
        assert not {"unit", "spacing", "finterval", "Info"} & set(known)
    write_volume(tmp_path / "b.tif", stack().astype(np.int32))
    with tifffile.TiffFile(tmp_path / "b.tif") as tiff:
        assert "PhysicalSize" not in tiff.ome_metadata
        assert "TimeIncrement" not in tiff.ome_metadata
