"""tools/segment.py with published networks: the authors' of 2015, and the Fiji plugin's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import caffe
from tests import caffe_unet, release2015
from tests.caffe_unet import write_modeldef
from unet.command import segment
from unet.model.modeldef import ModelDefinition
from unet.model.open_net import load_net
from unet.network.geometry import Geometry
from unet.segmentation import release2015 as release_procedure
from unet.segmentation.instances import find_instances
from unet.segmentation.segment import segment_image
from unet.segmentation.tiles import Tiling
from unet.volumes import read_volume, write_volume

WIDTH = 2
FRAMES = np.random.default_rng(0).integers(0, 256, (2, 40, 50)).astype(np.uint8)


TILING = Tiling.over(FRAMES.shape[1:], (236, 236), Geometry())


def run(*words: object) -> None:
    segment.main([*map(str, words), "--device", "cpu"])


@pytest.mark.parametrize("tile", ["204", "220x252"])
def test_the_release_of_2015_in_tiles_of_any_size(tmp_path, tile):
    release = release2015.write_release(tmp_path, WIDTH, FRAMES)
    frames, weights = release / "PhC-C2DH-U373" / "01", release / "phseg_v5.caffemodel"
    run(frames, "--weights", weights, "--tile", tile, "-o", tmp_path / "out.tif")
    (tmp_path / "test.prototxt").write_text(release2015.test_text((236, 236), WIDTH))
    net = caffe.Net(str(tmp_path / "test.prototxt"), str(weights), caffe.TEST)
    expected = [segment_image(net, frame[None] / np.float32(255), TILING) for frame in FRAMES]
    given = read_volume(tmp_path / "out.tif")
    assert np.ptp(given) > 0.01
    np.testing.assert_allclose(given, np.stack(expected)[:, 1], atol=1e-4)


def test_the_release_by_its_own_procedure(tmp_path):
    release = release2015.write_release(tmp_path, WIDTH, FRAMES)
    out = tmp_path / "cells.tif"
    run(
        *(release / "PhC-C2DH-U373" / "01", "--weights", release / "phseg_v5.caffemodel"),
        *("--procedure", "2015", "--instances", out),
    )
    net, geometry = load_net(
        caffe, release / "phseg_v5-train.prototxt", release / "phseg_v5.caffemodel"
    )
    tiling = release_procedure.tiling(FRAMES.shape[1:], geometry)
    probabilities = segment_image(net, FRAMES[0][None] / np.float32(255), tiling, "mirror")
    found = find_instances(probabilities, release_procedure.RULES)
    assert np.array_equal(read_volume(out)[0], found)


@pytest.fixture
def plugin_model(tmp_path) -> Path:
    text = tmp_path / "net.prototxt"
    text.write_text(caffe_unet.test_text((236, 236), width=WIDTH))
    caffe.set_random_seed(2)
    caffe.Net(str(text), caffe.TEST).save_hdf5(str(tmp_path / "cells.caffemodel.h5"))
    definition = ModelDefinition(caffe_unet.net_text(width=WIDTH), normalization_type=1)
    write_modeldef(tmp_path / "cells.modeldef.h5", definition)
    return tmp_path / "cells.caffemodel.h5"


def test_a_model_of_the_plugin(tmp_path, plugin_model):
    write_volume(tmp_path / "stack.tif", FRAMES)
    grey = ("--grey", 0, 255)
    run(tmp_path / "stack.tif", "--weights", plugin_model, *grey, "-o", tmp_path / "out.tif")
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST, weights=str(plugin_model))
    expected = segment_image(net, FRAMES[0][None] / np.float32(255), TILING)
    np.testing.assert_allclose(read_volume(tmp_path / "out.tif")[0], expected[1], atol=1e-4)


def test_its_definition_says_how_grey_values_are_scaled(tmp_path, plugin_model):
    frames = FRAMES.astype(np.uint16) * 7 + 100
    write_volume(tmp_path / "stack.tif", frames)
    run(tmp_path / "stack.tif", "--weights", plugin_model, "-o", tmp_path / "out.tif")
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST, weights=str(plugin_model))
    scaled = [(one - one.min()) / np.float32(np.ptp(one)) for one in frames]
    expected = [segment_image(net, one[None], TILING)[1] for one in scaled]
    np.testing.assert_allclose(read_volume(tmp_path / "out.tif"), expected, atol=1e-4)
