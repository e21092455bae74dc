"""A network is opened: its files are found, and one without its own weights is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

import caffe
from caffe.errors import CaffeError
from tests import caffe_unet, release2015
from tests.caffe_unet import write_modeldef
from unet.errors import InputError
from unet.machine.engine import PRECISIONS, open_engine
from unet.model import open_net
from unet.model.modeldef import ModelDefinition
from unet.model.open_net import find_model, load_net, open_deployed
from unet.network.geometry import Geometry

WIDTH = 2


@pytest.fixture(scope="module")
def prototxt(repository: Path) -> Path:
    caffe.set_mode_cpu()
    return repository / "prototxt/unet_slim/deploy.prototxt"


@pytest.fixture(scope="module")
def trained(prototxt: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with weights as .caffemodel and as HDF5."""
    folder = tmp_path_factory.mktemp("trained")
    net = caffe.Net(str(prototxt), caffe.TEST)
    net.save(str(folder / "net.caffemodel"))
    net.save_hdf5(str(folder / "net.caffemodel.h5"))
    return folder


@pytest.fixture
def changed(prototxt: Path, tmp_path: Path):
    """Return what writes the deploy prototxt with a part of its text changed."""

    def change(old: str, new: str) -> Path:
        text = prototxt.read_text()
        assert old in text
        (tmp_path / "changed.prototxt").write_text(text.replace(old, new))
        return tmp_path / "changed.prototxt"

    return change


@pytest.mark.parametrize("name", ["net.caffemodel", "net.caffemodel.h5"])
def test_weights_arrive(prototxt, trained, name):
    net, _ = load_net(caffe, prototxt, trained / name)
    wanted = caffe.Net(str(prototxt), str(trained / name), caffe.TEST)
    for layer, blobs in wanted.params.items():
        for blob, given in zip(blobs, net.params[layer]):
            np.testing.assert_array_equal(given.data, blob.data)


def test_seams_are_looked_at_in_full_precision(prototxt, trained, monkeypatch):
    computed = []
    check = open_net._check_seams
    monkeypatch.setattr(
        open_net,
        "_check_seams",
        lambda *arguments: computed.append(caffe.get_precision()) or check(*arguments),
    )
    caffe.set_precision("tf32")
    try:
        load_net(caffe, prototxt, trained / "net.caffemodel")
        assert computed == ["fp32"]
        assert caffe.get_precision() == "tf32"
    finally:
        caffe.set_precision("fp32")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_model_is_taken_on_a_gpu_in_each_precision(prototxt, trained, precision):
    try:
        load_net(open_engine("0", precision), prototxt, trained / "net.caffemodel")
    finally:
        open_engine("cpu")


def test_a_model_folder_or_weights_beside_their_net_are_enough(prototxt, trained, tmp_path):
    shutil.copy(trained / "net.caffemodel", tmp_path / "weights.caffemodel")
    with pytest.raises(
        InputError, match=r"weights\.caffemodel: no deploy\.prototxt lies beside it; .*--net"
    ):
        find_model(tmp_path)
    shutil.copy(prototxt, tmp_path)
    both = tmp_path / "deploy.prototxt", tmp_path / "weights.caffemodel"
    assert find_model(tmp_path) == both
    assert find_model(tmp_path / "weights.caffemodel") == both
    assert find_model(tmp_path, prototxt) == (prototxt, both[1])
    both[1].unlink()
    shutil.copy(trained / "net.caffemodel.h5", tmp_path / "weights.caffemodel.h5")
    assert find_model(tmp_path) == (both[0], tmp_path / "weights.caffemodel.h5")


def test_missing_files_are_named(prototxt, tmp_path):
    with pytest.raises(
        InputError, match=r"is no model folder, for it holds no weights\.caffemodel"
    ):
        find_model(tmp_path)
    (tmp_path / "choices.json").write_text("{}")
    with pytest.raises(InputError, match=r"is no model folder, .*: its training has judged none"):
        find_model(tmp_path)
    with pytest.raises(InputError, match=r"w\.h5: there is no such file"):
        find_model(tmp_path / "w.h5")
    (tmp_path / "w.modeldef.h5").touch()
    with pytest.raises(
        InputError, match=r"w\.modeldef\.h5: .* no weights; name .* w\.caffemodel\.h5"
    ):
        find_model(tmp_path / "w.modeldef.h5")
    (tmp_path / "weights.caffemodel").touch()
    with pytest.raises(InputError, match=r"other\.prototxt: there is no such file; name another"):
        find_model(tmp_path, tmp_path / "other.prototxt")


def test_a_layer_without_weights_is_refused(changed, trained):
    renamed = changed("conv_u0d-score", "conv_u0d-other")
    for name in ("net.caffemodel", "net.caffemodel.h5"):
        with pytest.raises(InputError, match=r"no weights, or NaN, for layer 'conv_u0d-other'"):
            load_net(caffe, renamed, trained / name)


def test_weights_of_nan_are_refused(prototxt, trained, tmp_path):
    net = caffe.Net(str(prototxt), str(trained / "net.caffemodel"), caffe.TEST)
    net.params["conv_d2b-c"][0].data[3, 2, 1, 1] = np.nan
    net.save(str(tmp_path / "diverged.caffemodel"))
    with pytest.raises(InputError, match=r"NaN, for layer 'conv_d2b-c'"):
        load_net(caffe, prototxt, tmp_path / "diverged.caffemodel")


@pytest.mark.parametrize("suffix", [".caffemodel", ".caffemodel.h5"])
def test_weights_of_a_larger_net_are_refused(prototxt, trained, tmp_path, suffix):
    # All that the net needs is there, in its shapes, and yet it would segment nonsense.
    message = caffe.proto.caffe_pb2.NetParameter()
    message.ParseFromString((trained / "net.caffemodel").read_bytes())
    for number in range(5):
        extra = message.layer.add(name=f"deeper_{number}", type="Convolution")
        extra.blobs.add().data.append(1)
    (tmp_path / "large.caffemodel").write_bytes(message.SerializeToString())
    shutil.copy(trained / "net.caffemodel.h5", tmp_path / "large.caffemodel.h5")
    with h5py.File(tmp_path / "large.caffemodel.h5", "a") as file:
        for number in range(5):
            file[f"data/deeper_{number}/0"] = np.ones(1, np.float32)
    wanted = "layers 'deeper_0', 'deeper_1', 'deeper_2' and 2 more, which .* lacks"
    with pytest.raises(InputError, match=wanted):
        load_net(caffe, prototxt, tmp_path / f"large{suffix}")


def test_weights_of_other_shapes_and_damaged_ones_are_refused(repository, trained, tmp_path):
    with pytest.raises(caffe.CaffeError, match="conv_d0a-b"):
        load_net(caffe, repository / "prototxt/unet/deploy.prototxt", trained / "net.caffemodel")
    slim = repository / "prototxt/unet_slim/deploy.prototxt"
    for name in ("net.caffemodel", "net.caffemodel.h5"):
        whole = (trained / name).read_bytes()
        for part in (0, 3, 100, len(whole) // 2, len(whole) - 3):
            (tmp_path / name).write_bytes(whole[:part])
            with pytest.raises((caffe.CaffeError, InputError), match=r"net\.caffemodel"):
                load_net(caffe, slim, tmp_path / name)


@pytest.mark.parametrize("new", ["kernel_size: 3", "kernel_size: 3 pad: 1"])
def test_a_net_of_another_geometry_opens(changed, tmp_path, new):
    other = changed("kernel_size: 1", new)
    caffe.Net(str(other), caffe.TEST).save(str(tmp_path / "other.caffemodel"))
    _, geometry = load_net(caffe, other, tmp_path / "other.caffemodel")
    assert geometry.border == 93


def test_a_net_whose_tiles_would_show_seams_is_refused(changed, trained, tmp_path, monkeypatch):
    other = changed("offset: 4", "offset: 3")
    with pytest.raises(InputError, match=r"changed\.prototxt: .* crop is not central: it is no"):
        load_net(caffe, other, trained / "net.caffemodel")
    # Values tell, too, whatever the text does.
    padded = changed("kernel_size: 1", "kernel_size: 3 pad: 1")
    caffe.Net(str(padded), caffe.TEST).save(str(tmp_path / "other.caffemodel"))
    monkeypatch.setattr(open_net, "_geometry_of", lambda text: Geometry())
    with pytest.raises(InputError, match="depend on where in the tile it lies"):
        load_net(caffe, padded, tmp_path / "other.caffemodel")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"data"', '"image"', "its inputs are \\['image'\\]; name the deploy prototxt"),
        ('"score"', '"scores"', "a blob 'score'"),
        ("num_output: 2", "num_output: 1", "one for each class"),
    ],
)
def test_a_net_that_does_not_segment_is_refused(changed, trained, old, new, said):
    with pytest.raises(InputError, match=said):
        load_net(caffe, changed(old, new), trained / "net.caffemodel")


def write_plugin_model(folder: Path, channels: int) -> None:
    """Write cells.modeldef.h5 and cells.caffemodel.h5, by an engine that saves HDF5."""
    path = folder / "net.prototxt"
    path.write_text(caffe_unet.test_text((188, 188), width=WIDTH, channels=channels))
    caffe.set_random_seed(1)
    caffe.Net(str(path), caffe.TEST).save_hdf5(str(folder / "cells.caffemodel.h5"))
    definition = ModelDefinition(caffe_unet.net_text(width=WIDTH), name="cells")
    write_modeldef(folder / "cells.modeldef.h5", definition)


def test_the_release_opens_as_its_scripts_opened_it(tmp_path):
    release = release2015.write_release(tmp_path, WIDTH, np.zeros((1, 20, 20), np.uint8))
    prototxt, weights = find_model(release / "phseg_v5.caffemodel")
    assert prototxt == release / "phseg_v5-train.prototxt"
    assert find_model(release) == (prototxt, weights)
    net, _ = load_net(caffe, prototxt, weights)
    reference = tmp_path / "test.prototxt"
    reference.write_text(release2015.test_text((220, 204), WIDTH))
    expected = caffe.Net(str(reference), str(weights), caffe.TEST)
    picture = np.random.default_rng(0).random((220, 204))
    scores = []
    for opened in (net, expected):
        opened.blobs["data"].reshape(1, 1, 220, 204)
        opened.blobs["data"].data[...] = picture
        scores.append(opened.forward(["score"])["score"].copy())
    assert np.array_equal(*scores)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_model_of_the_plugin_opens_with_the_channels_of_its_weights(tmp_path, channels):
    write_plugin_model(tmp_path, channels)
    prototxt, weights = find_model(tmp_path / "cells.caffemodel.h5")
    assert prototxt == tmp_path / "cells.modeldef.h5"
    assert find_model(prototxt) == (prototxt, weights)
    net, _ = load_net(caffe, prototxt, weights)
    assert net.blobs["data"].shape[1] == channels


def test_a_deploy_prototxt_opens_as_it_is(repository):
    path = repository / "prototxt" / "unet_slim" / "deploy.prototxt"
    assert tuple(open_deployed(caffe, path, {})[0].blobs["data"].shape) == (1, 1, 572, 572)


def test_an_error_in_the_text_names_its_own_file_and_line(tmp_path):
    path = tmp_path / "phseg_v5-train.prototxt"
    path.write_text(release2015.train_text(WIDTH).replace("type: POOLING", "type: POOL", 1))
    line = path.read_text()[: path.read_text().index("type: POOL\n")].count("\n") + 1
    with pytest.raises(CaffeError, match=rf"^{path}:{line}:"):
        open_deployed(caffe, path, {})


def test_a_volume_network_of_the_plugin_is_refused(tmp_path):
    definition = ModelDefinition(caffe_unet.net_text(width=2), element_size_um=(1.0, 1.0, 1.0))
    write_modeldef(tmp_path / "cells.modeldef.h5", definition)
    with pytest.raises(InputError, match=r"cells.modeldef.h5: is of 3 dimensions"):
        open_deployed(caffe, tmp_path / "cells.modeldef.h5", {})
