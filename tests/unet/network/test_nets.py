"""The networks: sizes and names of the published ones, and the files that are checked in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe.proto import caffe_pb2
from tests.unet.noise_set import write_noise_set
from unet.command import nets as command
from unet.errors import InputError
from unet.network import nets

MESSAGES = {"solver": caffe_pb2.SolverParameter}


def parse(path: Path) -> object:
    message = MESSAGES.get(path.name.split("_")[0].split(".")[0], caffe_pb2.NetParameter)()
    return text_format.Parse(path.read_text(), message)


def open_net(folder: Path, message: caffe_pb2.NetParameter, tile: int) -> caffe.Net:
    """Make a deploy net for another tile size."""
    message.layer[0].input_param.shape[0].dim[2:] = [tile, tile]
    path = folder / "net.prototxt"
    path.write_text(str(message))
    return caffe.Net(str(path), caffe.TEST)


@pytest.mark.parametrize("name", sorted(nets.WIDTHS))
def test_checked_in_files_are_what_nets_writes(repository, name):
    written = nets.isbi_files(name)
    folder = repository / "prototxt" / name
    assert sorted(written) == sorted(path.name for path in folder.iterdir())
    for file, content in written.items():
        path = folder / file
        found = path.read_text() if isinstance(content, str) else parse(path)
        assert found == content, f"{file} differs; run unet nets"


# Ronneberger et al. 2015, Fig. 1, by hand: 3x3 convolutions, up-convolutions, 1x1.
def parameters_of_width(w: int) -> int:
    def convolution(size, inputs, outputs):
        return size * size * inputs * outputs + outputs

    total = convolution(3, 1, w) + convolution(3, w, w)
    for level in (1, 2, 3, 4):
        maps = w * 2**level
        total += convolution(3, maps // 2, maps) + convolution(3, maps, maps)
        total += convolution(2, maps, maps // 2)
        total += convolution(3, maps, maps // 2) + convolution(3, maps // 2, maps // 2)
    return total + convolution(1, w, 2)


@pytest.mark.parametrize(("name", "count"), [("unet", 31_030_658), ("unet_slim", 1_940_834)])
def test_networks_have_the_papers_layers_and_parameters(tmp_path, name, count):
    assert parameters_of_width(nets.WIDTHS[name]) == count
    net = open_net(tmp_path, nets.deploy_net(name), 188)
    assert sum(blob.count for blobs in net.params.values() for blob in blobs) == count
    assert len(net.params) == 23
    kinds = [layer.type for layer in net.layers]
    assert kinds.count("Convolution") == 19
    assert kinds.count("Deconvolution") == 4
    assert kinds.count("ReLU") == 18
    assert kinds.count("Pooling") == kinds.count("Crop") == kinds.count("Concat") == 4
    assert kinds.count("Dropout") == 2


def test_maps_have_the_sizes_of_fig_1(tmp_path):
    net = open_net(tmp_path, nets.deploy_net("unet_slim"), 572)
    # Fig. 1 divided by four in channels.
    sizes = {
        "d0b": (16, 570), "d0c": (16, 568), "d1a": (16, 284), "d1c": (32, 280), "d2a": (32, 140),
        "d2c": (64, 136), "d3a": (64, 68), "d3c": (128, 64), "d4a": (128, 32), "d4c": (256, 28),
        "u3a": (128, 56), "d3cc": (128, 56), "u3b": (256, 56), "u3d": (128, 52), "u2a": (64, 104),
        "d2cc": (64, 104), "u2d": (64, 100), "u1a": (32, 200), "u1d": (32, 196), "u0a": (16, 392),
        "d0cc": (16, 392), "u0b": (32, 392), "u0d": (16, 388), "score": (2, 388), "prob": (2, 388),
    }  # fmt: skip
    assert {name: net.blobs[name].data.shape for name in sizes} == {
        name: (1, maps, size, size) for name, (maps, size) in sizes.items()
    }


def test_crops_are_central(tmp_path):
    net = open_net(tmp_path, nets.deploy_net("unet_slim"), 204)
    message = nets.deploy_net("unet_slim")
    crops = [layer for layer in message.layer if layer.type == "Crop"]
    assert len(crops) == 4
    for layer in crops:
        skip, reference = (net.blobs[name].data.shape for name in layer.bottom)
        assert layer.crop_param.axis == 2
        assert list(layer.crop_param.offset) == [(skip[2] - reference[2]) // 2]
        assert (skip[2] - reference[2]) % 2 == 0


def test_layers_are_called_and_joined_as_in_the_authors_networks():
    layers = {layer.name: layer for layer in nets.deploy_net("unet").layer}
    for name, bottoms, tops in [
        ("conv_d0a-b", ["data"], ["d0b"]),
        ("relu_d0b", ["d0b"], ["d0b"]),
        ("conv_d0b-c", ["d0b"], ["d0c"]),
        ("pool_d0c-1a", ["d0c"], ["d1a"]),
        ("conv_d1a-b", ["d1a"], ["d1b"]),
        ("dropout_d3c", ["d3c"], ["d3c"]),
        ("pool_d3c-4a", ["d3c"], ["d4a"]),
        ("dropout_d4c", ["d4c"], ["d4c"]),
        ("upconv_d4c_u3a", ["d4c"], ["u3a"]),
        ("crop_d3c-d3cc", ["d3c", "u3a"], ["d3cc"]),
        ("concat_d3cc_u3a-b", ["u3a", "d3cc"], ["u3b"]),
        ("conv_u3b-c", ["u3b"], ["u3c"]),
        ("upconv_u3d_u2a", ["u3d"], ["u2a"]),
        ("conv_u0c-d", ["u0c"], ["u0d"]),
        ("conv_u0d-score", ["u0d"], ["score"]),
    ]:
        assert list(layers[name].bottom) == bottoms, name
        assert list(layers[name].top) == tops, name
    # No ReLU after an up-convolution (Fig. 1).
    assert not [name for name in layers if name.startswith("relu_u") and name.endswith("a")]
    # The drop-out of the skip map comes before both its pooling and its crop.
    order = list(layers)
    assert order.index("relu_d3c") < order.index("dropout_d3c") < order.index("pool_d3c-4a")


def test_weights_are_drawn_and_learn_as_in_the_paper(tmp_path):
    caffe.set_random_seed(3)
    net = open_net(tmp_path, nets.deploy_net("unet_slim"), 188)
    weights, bias = (blob.data for blob in net.params["conv_d3b-c"])
    incoming = 3 * 3 * 128
    assert weights.std() == pytest.approx(np.sqrt(2 / incoming), rel=0.01)
    assert abs(weights.mean()) < 1e-3
    assert not bias.any()
    for layer in nets.deploy_net("unet").layer:
        if layer.type in ("Convolution", "Deconvolution"):
            assert [(p.lr_mult, p.decay_mult) for p in layer.param] == [(1, 1), (2, 0)], layer.name


@pytest.mark.parametrize("name", sorted(nets.WIDTHS))
def test_solvers_are_the_papers_sgd_and_adam(name):
    files = nets.isbi_files(name)
    prefixes = set()
    for split in ("holdout", "isbi"):
        sgd, adam = files[f"solver_{split}.prototxt"], files[f"solver_{split}_adam.prototxt"]
        assert sgd.type == "SGD"
        assert sgd.momentum == pytest.approx(0.99)
        # Kingma and Ba, Adam, ICLR 2015, Algorithm 1.
        assert (adam.type, adam.weight_decay) == ("Adam", 0)
        assert (adam.momentum, adam.momentum2, adam.delta) == pytest.approx((0.9, 0.999, 1e-8))
        for solver in (sgd, adam):
            assert solver.random_seed >= 0
            assert solver.iter_size == 1
            prefixes.add(solver.snapshot_prefix)
    # No run goes on from another's snapshots.
    assert len(prefixes) == 4


@pytest.mark.parametrize(
    ("options", "method"),
    [(["unet"], "SGD"), (["unet_slim"], "Adam"), (["unet_slim", "--solver", "SGD"], "SGD")],
)
def test_own_data_is_learnt_by_the_method_that_suits_the_net(tmp_path, options, method):
    data = write_noise_set(tmp_path / "mine.h5", (4, 30, 40))
    command.main([*options, "--data", str(data), "--tile", "188", "-o", str(tmp_path / "mine")])
    assert parse(tmp_path / "mine" / "solver.prototxt").type == method


def test_files_for_own_data_follow_its_classes_and_channels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = write_noise_set(tmp_path / "mine.h5", (4, 30, 40), classes=3, channels=2)
    command.main(
        ["unet_slim", "--data", str(data), "--train-slices", ":3", "--test-slices", "3:"]
        + ["--tile", "188", "--iterations", "7", "-o", "mine"]
    )
    solver = parse(tmp_path / "mine" / "solver.prototxt")
    assert solver.max_iter == 7
    # One slice of 30 x 40 in outputs of 4 x 4.
    assert list(solver.test_iter) == [8 * 10]
    made = caffe.get_solver("mine/solver.prototxt")
    made.step(1)
    assert made.net.blobs["data"].data.shape == (1, 2, 188, 188)
    assert made.net.blobs["score"].data.shape == (1, 3, 4, 4)
    assert np.isfinite(made.net.blobs["loss"].data)
    made.test_nets[0].share_with(made.net)
    assert set(made.test_nets[0].forward()) == {"loss", "accuracy"}
    deploy = caffe.Net("mine/deploy.prototxt", caffe.TEST)
    assert deploy.blobs["prob"].data.shape == (1, 3, 4, 4)


def test_own_data_without_test_slices_has_no_test_net(tmp_path):
    data = write_noise_set(tmp_path / "mine.h5", (4, 30, 40))
    files = nets.own_files("unet", str(data), "out", tile=252, iterations=9)
    names = ["deploy.prototxt", "input.json", "solver.prototxt", "train_val.prototxt"]
    assert sorted(files) == names
    assert not files["solver.prototxt"].test_iter
    tiles, after = files["train_val.prototxt"].layer[:2]
    assert after.type == "Convolution"
    config = json.loads(tiles.python_param.param_str)
    assert config["tile"] == 252
    assert "slices" not in config


STEP = """
import sys, numpy as np, caffe
caffe.set_random_seed(2)
results = {}
for folder in str(np.load(sys.argv[1])["folders"]).split():
    solver = caffe.get_solver(folder + "/solver.prototxt")
    solver.step(1)
    (test,) = solver.test_nets
    test.share_with(solver.net)
    results[folder] = [solver.net.blobs["loss"].data, test.forward()["loss"]]
    results[folder + " sizes"] = [
        net.blobs[blob].data.shape[2] for net in (solver.net, test) for blob in ("data", "score")
    ]
np.savez(sys.argv[2], **results)
"""
# The smallest tiles of unpadded nets, and the scores that they give.
SMALLEST = {"2": (44, 4), "3": (92, 4), "4": (188, 4), "5": (380, 4)}


@pytest.mark.parametrize("engine", ["ours", pytest.param("reference", marks=pytest.mark.reference)])
def test_nets_of_2_to_5_levels_train_on_both_engines(tmp_path, monkeypatch, engine, request):
    monkeypatch.chdir(tmp_path)
    data = write_noise_set(tmp_path / "mine.h5", (4, 30, 40))
    slices = ["--train-slices", "0:3", "--test-slices", "3:4"]
    wanted = {}
    for levels, sizes in SMALLEST.items():
        wanted[f"valid{levels}"] = sizes
        wanted[f"padded{levels}"] = (2 * 2 ** int(levels),) * 2
    for folder, (tile, _) in wanted.items():
        padded = ["--padded"] if folder.startswith("padded") else []
        shape = ["--levels", folder[-1], *padded, "--tile", str(tile)]
        command.main(["unet_slim", "--data", str(data), *slices, *shape, "-o", folder])
    folders = " ".join(wanted)
    found = request.getfixturevalue(engine).run(STEP, dict(folders=folders), cwd=tmp_path)
    for folder, sizes in wanted.items():
        assert tuple(found[f"{folder} sizes"]) == sizes * 2
        assert (found[folder] > 0).all()
        assert (found[folder] < 20).all()


def test_the_usual_tile_is_the_next_smaller_valid_one(tmp_path):
    data = write_noise_set(tmp_path / "mine.h5", (4, 30, 40))
    for levels, padded, tile in ((4, False, 444), (4, True, 432), (3, False, 444), (5, True, 416)):
        files = nets.own_files("unet_slim", str(data), "out", levels=levels, padded=padded)
        param = json.loads(files["train_val.prototxt"].layer[0].python_param.param_str)
        assert param["tile"] == tile
        assert param.get("pad_output", -124) == (0 if padded else 4 - 2 ** (levels + 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--data"),
        (["--data", "absent.h5"], "absent.h5"),
        (["--data", "mine.h5", "--tile", "200"], "188 and 204"),
        (["--data", "mine.h5", "--iterations", "0"], "0 iterations"),
        (
            ["--data", "mine.h5", "--train-slices", "0:5"],
            "--train-slices 0:5: .* B <= 4, the slices",
        ),
        (["--data", "mine.h5", "--test-slices", "2:2"], "--test-slices 2:2: give A:B"),
        (["--data", "mine.h5", "--test-slices", "2:4"], "slices 2, 3 of mine.h5 are to be trained"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    write_noise_set(tmp_path / "mine.h5", (4, 30, 40))
    with pytest.raises(InputError, match=message):
        command.main(["unet_slim", "-o", "out", *options])
    assert not (tmp_path / "out").exists()


def test_the_checked_in_files_are_made_anew_beside_what_else_is_there(tmp_path, repository):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "notes.txt").write_text("mine")
    for _ in range(2):
        command.main(["-o", str(tmp_path)])
    assert (tmp_path / "unet" / "notes.txt").read_text() == "mine"
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*")}
    wanted = (repository / "prototxt").glob("*/*")
    assert made == {f"{path.parent.name}/{path.name}" for path in wanted} | {"unet/notes.txt"}
    (tmp_path / "unet_slim" / "train_val.prototxt").write_text("name: 'mine'")
    with pytest.raises(
        InputError, match=r"unet_slim/train_val.prototxt: exists, and is not a file"
    ):
        command.main(["-o", str(tmp_path)])
    assert (tmp_path / "unet_slim" / "train_val.prototxt").read_text() == "name: 'mine'"
