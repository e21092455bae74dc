"""Ciresan's network: its shape, and that all windows at once are each window by itself."""

from __future__ import annotations

import numpy as np
import pytest

import caffe
from caffe.proto import caffe_pb2
from tests.parity.harness import assert_close
from tests.unet.noise_set import write_noise_set
from unet.command import nets
from unet.errors import InputError
from unet.network.nets import deploy_net, window_files
from unet.network.sliding_window import (
    dense_net,
    dense_side,
    join_fragments,
    multiply_adds,
    window_body,
)

WINDOWS = (9, 23, 47, 95)

# Scores windows one by one, and all that lie in a picture at once, with the same parameters.
BOTH_WAYS = """
import sys
import numpy as np
import caffe
from exchange import text_file
from unet.network.sliding_window import join_fragments

given = dict(np.load(sys.argv[1]))
results = {}
for window in given.pop("windows").tolist():
    picture = given["picture %d" % window]
    each, all_ = (
        caffe.Net(text_file(str(given["%s %d" % (name, window)])), caffe.TEST)
        for name in ("each", "all")
    )
    random = np.random.RandomState(1)
    for name, blobs in each.params.items():
        blobs[1].data[...] = random.normal(0, 0.1, blobs[1].data.shape)
        fan = blobs[0].data[0].size
        blobs[0].data[...] = random.normal(0, (2 / fan) ** 0.5, blobs[0].data.shape)
        for mine, theirs in zip(all_.params[name], blobs):
            mine.data[...] = theirs.data
    all_.blobs["data"].data[0, 0] = picture
    all_.forward()
    side = len(picture)
    results["at once %d" % window] = join_fragments(
        np.array(all_.blobs["score"].data), window, side
    )
    count = side - window + 1
    places = given["places %d" % window]
    each.blobs["data"].reshape(len(places), 1, window, window)
    for tile, (y, x) in zip(each.blobs["data"].data, places):
        tile[0] = picture[y : y + window, x : x + window]
    each.forward()
    results["by itself %d" % window] = np.array(each.blobs["score"].data)[:, :, 0, 0]
np.savez(sys.argv[2], **results)
"""


def both_ways(windows: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return what the script is given: nets, pictures, and corners and others of its windows."""
    random = np.random.default_rng(0)
    given: dict[str, object] = {"windows": np.array(windows)}
    for window in windows:
        side = dense_side(window, 12)
        last = side - window
        given[f"each {window}"] = str(deploy_net("each", tile=window, body=window_body(window)))
        given[f"all {window}"] = str(dense_net(window, side))
        given[f"picture {window}"] = random.random((side, side)).astype(np.float32)
        places = [(0, 0), (0, last), (last, 0), (last, last), (3, 5), (7, 2)]
        given[f"places {window}"] = np.array([*places, *random.integers(0, last, (6, 2))])
    return given


def check(given: dict[str, np.ndarray], got: dict[str, np.ndarray]) -> None:
    for window in given["windows"]:
        y, x = given[f"places {window}"].T
        whole, some = got[f"at once {window}"], got[f"by itself {window}"]
        assert whole.shape[1:] == (len(given[f"picture {window}"]) - window + 1,) * 2
        assert np.abs(some).max() > 0.1
        np.testing.assert_allclose(whole[:, y, x].T, some, atol=1e-5)


def test_all_windows_at_once_are_each_window_by_itself(ours):
    given = both_ways((9, 23, 95))
    check(given, ours.run(BOTH_WAYS, given))


def test_so_they_are_in_genuine_caffe(ours, reference):
    given = both_ways((23, 95))
    got, wanted = ours.run(BOTH_WAYS, given), reference.run(BOTH_WAYS, given)
    check(given, wanted)
    assert_close(got, wanted, relative=1e-4)


def test_a_step_of_training_on_windows_is_genuine_caffes(ours, reference, tmp_path):
    data = write_noise_set(tmp_path / "set.h5", (3, 60, 60))
    files = window_files(str(data), str(tmp_path), window=23)
    net = caffe_pb2.NetParameter()
    net.CopyFrom(files["train_val.prototxt"])
    script = """
import sys
import numpy as np
import caffe
from exchange import text_file

given = np.load(sys.argv[1])
net = text_file(str(given["net"]))
solver = caffe.get_solver(text_file(str(given["solver"]).replace("NET", net)))
random = np.random.RandomState(1)
for blobs in solver.net.params.values():
    blobs[0].data[...] = random.normal(0, (2 / blobs[0].data[0].size) ** 0.5, blobs[0].data.shape)
results = {}
for step in range(2):
    solver.step(1)
    results["loss %d" % step] = solver.net.blobs["loss"].data
    for name in ("data", "label", "weight"):
        results["%s %d" % (name, step)] = solver.net.blobs[name].data
    for name, blobs in solver.net.params.items():
        results["%s gradient %d" % (name, step)] = blobs[0].diff
for name, blobs in solver.net.params.items():
    results[name + " learnt"] = blobs[0].data
np.savez(sys.argv[2], **{key: np.array(value) for key, value in results.items()})
"""
    solver = caffe_pb2.SolverParameter()
    solver.CopyFrom(files["solver.prototxt"])
    # Adam's first steps are of the rate's size whatever the gradient, rounding's too.
    solver.type, solver.momentum, solver.net = "SGD", 0.9, "NET"
    solver.base_lr, solver.snapshot, solver.snapshot_after_train = 1e-4, 0, False
    solver.ClearField("momentum2")
    given = {"net": str(net), "solver": str(solver)}
    got, wanted = ours.run(script, given), reference.run(script, given)
    assert wanted["data 0"].shape == (8, 1, 23, 23)
    assert wanted["label 0"].shape == (8, 1, 1, 1)
    assert set(np.unique(wanted["label 0"])) == {0, 1}
    assert 0 < wanted["loss 0"] < 200
    assert_close(got, wanted, relative=1e-3)


def test_the_shape_is_that_of_n4():
    net = deploy_net("n4", tile=95, body=window_body(95))
    shown = [
        (layer.convolution_param.num_output, layer.convolution_param.kernel_size[0])
        for layer in net.layer
        if layer.type == "Convolution"
    ]
    assert shown == [(48, 4), (48, 5), (48, 4), (48, 4), (200, 3), (2, 1)]
    assert [layer.type for layer in net.layer].count("Pooling") == 4


def test_multiply_adds_are_counted(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(str(deploy_net("n4", tile=95, body=window_body(95))))
    convolutions = 92**2 * 16 * 48 + 42**2 * 25 * 48**2 + (18**2 + 6**2) * 16 * 48**2
    assert multiply_adds(caffe.Net(str(path), caffe.TEST)) == (
        convolutions + 9 * 48 * 200 + 200 * 2
    )


@pytest.mark.parametrize("window", WINDOWS)
def test_sides_are_the_smallest_that_have_room_for_so_many_windows(window):
    sides = sorted({dense_side(window, output) for output in range(1, 200)})
    for output in range(1, 150):
        need = output + window - 1
        assert dense_side(window, output) == min(side for side in sides if side >= need)
    with pytest.raises(InputError, match=f"the next that is has {sides[1]}"):
        dense_net(window, sides[0] + 1)


def test_what_does_not_fit_is_one_sentence(tmp_path):
    data = str(write_noise_set(tmp_path / "set.h5"))
    with pytest.raises(InputError, match=r"window of 65 does not .* 9, 23, 47, 95 do"):
        window_files(data, "folder", window=65)
    with pytest.raises(InputError, match="0 iterations are too few"):
        window_files(data, "folder", iterations=0)
    with pytest.raises(InputError, match="--train-slices 2:9"):
        window_files(data, "folder", train=range(2, 9))


def test_fragments_of_a_picture_itself_give_it_back():
    """Poolings that keep each place's number tell where each fragment came from."""
    picture = np.arange(40.0 * 40).reshape(40, 40)
    padded = np.pad(picture, ((1, 1), (1, 1)))
    parts = [padded[1 - y :: 2, 1 - x :: 2][:20, :20] for y in (0, 1) for x in (0, 1)]
    whole = join_fragments(np.stack(parts)[:, None], 9, 40)
    assert np.array_equal(whole[0], picture[:32, :32])


def test_the_command_writes_the_network_of_a_window(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_noise_set(tmp_path / "set.h5", (4, 60, 50))
    call = ["sliding_window", "--data", "set.h5", "--tile", "47", "--train-slices", "1:3"]
    nets.main([*call, "--iterations", "7", "-o", "mine"])
    files = window_files("set.h5", "mine", window=47, iterations=7, train=range(1, 3))
    for name, content in files.items():
        assert str(content) in (tmp_path / "mine" / name).read_text()
    assert files["dense.prototxt"].layer[0].input_param.shape[0].dim[2] == dense_side(47, 60)
    for words in (["--levels", "3"], ["--padded"], ["--solver", "SGD"], ["--test-slices", "0:1"]):
        with pytest.raises(InputError, match=f"{words[0]} is for a U-Net"):
            nets.main([*call, *words, "-o", "other"])
    assert not (tmp_path / "other").exists()
