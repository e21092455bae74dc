"""A model: its files are found, and a net without its own weights is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

import caffe
from unet import model
from unet.errors import InputError
from unet.machine.engine import PRECISIONS, open_engine
from unet.model import find_model, load_net, pass_cost
from unet.nets import deploy_net
from unet.segmentation.segment import segment_picture
from unet.volumes import read_volume
from unet.volumes.intensity import scale_grey


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
    net = load_net(caffe, prototxt, trained / name)
    wanted = caffe.Net(str(prototxt), str(trained / name), caffe.TEST)
    for layer, blobs in wanted.params.items():
        for blob, given in zip(blobs, net.params[layer]):
            np.testing.assert_array_equal(given.data, blob.data)


def test_seams_are_looked_at_in_full_precision(prototxt, trained, monkeypatch):
    computed = []
    check = model._check_seams
    monkeypatch.setattr(
        model,
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


@pytest.mark.parametrize(
    ("old", "new"),
    [("kernel_size: 1", "kernel_size: 3"), ("kernel_size: 1", "kernel_size: 3 pad: 1")],
)
def test_a_net_of_another_geometry_is_refused(changed, tmp_path, old, new):
    other = changed(old, new)
    caffe.Net(str(other), caffe.TEST).save(str(tmp_path / "other.caffemodel"))
    with pytest.raises(InputError, match="it is no U-Net with four unpadded levels"):
        load_net(caffe, other, tmp_path / "other.caffemodel")


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


def multiply_adds(width: int, tile: tuple[int, int], classes: int = 2) -> int:
    """Count those of Fig. 1 by walking through it."""
    work = 0
    size, channels = np.array(tile), 1

    def convolve(maps: int, kernel: int = 3) -> None:
        nonlocal size, channels, work
        size = size - (kernel - 1)
        work += int(np.prod(size)) * kernel**2 * channels * maps
        channels = maps

    for level in range(5):
        if level:
            size = size // 2
        convolve(width * 2**level)
        convolve(width * 2**level)
    for level in range(3, -1, -1):
        work += int(np.prod(size)) * 4 * channels * (channels // 2)
        size, channels = size * 2, channels
        convolve(width * 2**level)
        convolve(width * 2**level)
    convolve(classes, 1)
    return work


@pytest.mark.parametrize(("name", "width"), [("unet", 64), ("unet_slim", 16)])
def test_cost_of_a_pass_is_that_of_the_net(name, width, tmp_path):
    (tmp_path / "net.prototxt").write_text(str(deploy_net(name)))
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    cost = pass_cost(net)
    for tile in ((188, 188), (572, 572), (204, 700)):
        assert cost.work(tile) == multiply_adds(width, tile)


@pytest.mark.parametrize("name", ["unet", "unet_slim"])
def test_memory_of_a_pass_is_what_lies_in_memory_at_the_same_time(name, tmp_path):
    (tmp_path / "net.prototxt").write_text(str(deploy_net(name)))
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    net.retain_data = False
    cost = pass_cost(net)
    net.blobs["data"].reshape(1, 1, 252, 316)
    net.reshape()
    seen = []

    def look(_layer: int) -> None:
        storages = {}
        for blob in net.blobs.values():
            tensor = blob.data_memory._tensor
            if tensor is not None:
                storage = tensor.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
        seen.append(sum(storages.values()))

    net.after_forward(look)
    net.forward()
    largest = 4 * max(blob.count for blob in net.blobs.values())
    assert cost.memory((252, 316)) == pytest.approx(max(seen) + largest, rel=0.02)
    # Far less than all maps take.
    assert max(seen) < 0.5 * sum(4 * blob.count for blob in net.blobs.values())


@pytest.mark.parametrize("name", ["isbi2012", "isbi2012_slim"])
def test_networks_that_come_with_the_project_know_cells_they_have_not_seen(
    name, repository, isbi_dir
):
    caffe.set_mode_cpu()
    net = load_net(caffe, *find_model(repository / "models" / name))
    volume, labels = (
        read_volume(isbi_dir / f"train-{stack}.tif")[25] for stack in ("volume", "labels")
    )
    grey = scale_grey(volume[None], None)
    likely = segment_picture(net, grey[:, 200:360, 200:360], (284, 284))
    wrong = (likely[1] > 0.5) != (labels[200:360, 200:360] > 0)
    # More than a fifth of these pixels are membranes; the whole slice has half as many errors.
    assert wrong.mean() < 0.12
