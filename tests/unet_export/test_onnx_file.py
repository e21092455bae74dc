"""Whole networks as ONNX: ONNX Runtime gives this engine's numbers for every valid size."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="needs pip install onnx onnxruntime (Python 3.11)")

import onnx
import onnxruntime

import caffe
from tests import release2015
from tests.plain_caffe_unet import PluginModel
from tests.unet.model.test_adapt import write_model
from tests.unet_export.running import assert_equal, in_onnx, outputs_of
from unet.datasets import phantom
from unet.errors import InputError
from unet.volumes.intensity import scale_intensity
from unet_export import write_onnx
from unet_export.network import write_network
from unet_export.source import open_source


def valid_sizes(opened, channels: int, many: int = 2) -> list[dict[str, tuple[int, ...]]]:
    """Return random valid shapes of small inputs, and of a batch."""
    random = np.random.default_rng(4)
    name = opened.net.inputs[0]
    shapes = []
    for number in range(many):
        sizes = [
            axis.smallest + axis.downsample_factor * int(random.integers(0, 3))
            for axis in opened.axes
        ]
        shapes.append({name: (1 + number % 2, channels, *sizes)})
    return shapes


@pytest.mark.parametrize(
    "name", ["isbi2012_slim", "phc-u373_slim", pytest.param("isbi2012", marks=pytest.mark.slow)]
)
def test_networks_that_come_with_the_project(tmp_path, name):
    told = write_onnx(name, tmp_path / "net.onnx")
    assert told.inputs == {"data": ["batch", 1, "height", "width"]}
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    net = open_source(name).net
    cells = phantom.touching_cells if name == "phc-u373_slim" else phantom.phantom
    (picture,), _ = cells(slices=1, size=300, seed=2)
    picture = scale_intensity(picture, None)
    # Of the paper's network a pass costs much.
    for rows, columns in [(252, 252)] if name == "isbi2012" else [(204, 188), (252, 268)]:
        tile = picture[None, None, :rows, :columns]
        wanted = outputs_of(net, {"data": tile})["prob"]
        (found,) = session.run(["prob"], {"data": tile})
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    assert np.ptp(wanted[:, 1]) > 0.1
    said = session.get_modelmeta().custom_metadata_map
    assert said["classes"] == "2"
    assert said["normalisation"] == "each slice to mean 1/2 and standard deviation 1/6"
    assert json.loads(said["pad_input"]) == [92, 92]
    numbers = [json.loads(said[key])[0] for key in ("downsampleFactor", "padInput", "padOutput")]
    assert numbers == [16, 60, -124]


@pytest.mark.parametrize(("levels", "padded"), [(2, False), (3, True), (4, True), (5, False)])
def test_other_networks_of_the_project(tmp_path, levels, padded):
    tile = {2: 92, 3: 96, 4: 96, 5: 412}[levels]
    folder = write_model(tmp_path / "m", levels=levels, padded=padded, tile=tile, channels=3)
    opened = open_source(folder)
    assert len({axis.downsample_factor for axis in opened.axes}) == 1
    assert opened.axes[0].levels == levels
    assert_equal(opened.net, valid_sizes(opened, 3))


def test_the_release_of_2015(tmp_path):
    release = release2015.write_release(tmp_path, 2, np.zeros((1, 20, 30), np.uint8))
    opened = open_source(release / "phseg_v5.caffemodel")
    assert opened.axes[0].border == 92
    assert_equal(opened.net, valid_sizes(opened, 1))


@pytest.mark.parametrize("levels", [(2, 2), (1, 2), (1, 2, 2)])
def test_networks_of_the_plugin_in_two_and_three_dimensions(tmp_path, levels):
    opened = open_source(PluginModel(tmp_path, levels).path)
    assert len(opened.axes) == len(levels)
    assert_equal(opened.net, valid_sizes(opened, 1))


def test_layers_of_a_network_one_by_one(tmp_path):
    folder = write_model(tmp_path / "m", levels=2)
    opened = open_source(folder)
    net, (size,) = opened.net, {axis.smallest for axis in opened.axes}
    net.retain_data = True
    picture = np.random.default_rng(0).random((1, 1, size, size + 4)).astype(np.float32)
    names = [top for tops in net.top_names.values() for top in tops if top not in net.inputs]
    last = {top: layer for layer, tops in net.top_names.items() for top in tops}
    written = write_network(net, list(dict.fromkeys(names)))
    session = in_onnx(written)
    outputs_of(net, {"data": picture})
    for name, found in zip(written.outputs, session.run(list(written.outputs), {"data": picture})):
        wanted = net.blobs[name].data
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5, err_msg=last[name])
    assert len(written.outputs) > 20


def test_equal_networks_give_equal_bytes(tmp_path):
    folder = write_model(tmp_path / "m")
    write_onnx(folder, tmp_path / "a.onnx")
    write_onnx(folder, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_a_net_that_does_not_segment(tmp_path):
    text = """
        layer { name: "data" type: "Input" top: "data"
                input_param { shape { dim: 1 dim: 3 dim: 12 dim: 12 } } }
        layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
                convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "msra" } } }
        layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
        layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool"
                pooling_param { kernel_size: 3 stride: 2 } }
        layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip"
                inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
        layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
    """
    (tmp_path / "deploy.prototxt").write_text(text)
    net = caffe.Net(str(tmp_path / "deploy.prototxt"), caffe.TEST)
    net.save(str(tmp_path / "weights.caffemodel"))
    told = write_onnx(tmp_path, tmp_path / "net.onnx")
    assert told.inputs == {"data": ["batch", 3, 12, 12]}
    assert told.outputs == {"prob": ["batch", 5]}
    assert "classes" not in told.metadata
    assert_equal(net, [{"data": (3, 3, 12, 12)}])


def test_the_file_is_checked_and_names_its_operators(tmp_path):
    write_onnx(write_model(tmp_path / "m"), tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import] == [17]
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    assert {info.name for info in inferred.graph.value_info} > {"d0b", "u0d"}


@pytest.mark.parametrize(
    ("name", "said"),
    [("net.txt", r"name a file NAME\.onnx"), ("folder.onnx", "is a folder; name a file in it")],
)
def test_places_that_are_none_for_a_file(tmp_path, name, said):
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(InputError, match=said):
        write_onnx(write_model(tmp_path / "m"), tmp_path / name)


def test_foreign_files_stay_and_earlier_exports_do_not(tmp_path):
    folder = write_model(tmp_path / "m")
    (tmp_path / "net.onnx").write_bytes(b"somebody's work")
    with pytest.raises(InputError, match="exists, and is not a network export"):
        write_onnx(folder, tmp_path / "net.onnx")
    assert (tmp_path / "net.onnx").read_bytes() == b"somebody's work"
    write_onnx(folder, tmp_path / "net.onnx", overwrite=True)
    write_onnx(folder, tmp_path / "net.onnx")
    with pytest.raises(InputError, match=r"name a file NAME\.onnx"):
        write_onnx(folder, folder / "weights.caffemodel")


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    folder = write_model(tmp_path / "m")
    net = caffe.Net(str(folder / "deploy.prototxt"), caffe.TEST)
    net.params["conv_d0a-b"][0].data[0, 0, 0, 0] = np.nan
    net.save(str(folder / "weights.caffemodel"))
    with pytest.raises(InputError, match="holds no weights, or NaN, for layer 'conv_d0a-b'"):
        write_onnx(folder, tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


def test_more_weights_than_a_file_of_onnx_holds_are_told_before_it_is_begun(tmp_path, monkeypatch):
    monkeypatch.setattr("unet_export.network._MOST_BYTES", 7_000_000)
    with pytest.raises(InputError, match=r"weights take 0\.0 GiB, but a file of ONNX holds 2"):
        write_onnx("isbi2012_slim", tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path, small_disk):
    folder = write_model(tmp_path / "m", maps=32)
    with pytest.raises(InputError, match=r"net\.onnx: cannot be written: the disk is full"):
        write_onnx(folder, small_disk / "net.onnx")
    assert list(small_disk.iterdir()) == []
