"""The program that segments: what it writes, and how it refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

import caffe
import unet
from unet.command import segment
from unet.errors import InputError
from unet.network.geometry import Geometry
from unet.network.nets import deploy_net
from unet.segmentation import release2015
from unet.segmentation.instances import InstanceRules, find_instances
from unet.segmentation.segment import segment_image
from unet.segmentation.tiles import Tiling
from unet.volumes import intensity_range, read_volume, write_volume
from unet.volumes.intensity import input_text, scale_intensity

PROGRAM = Path(__file__).parents[3] / "tools" / "segment.py"


@pytest.fixture(scope="module")
def model(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model folder."""
    folder = tmp_path_factory.mktemp("model")
    shutil.copy(repository / "prototxt/unet_slim/deploy.prototxt", folder)
    caffe.set_mode_cpu()
    caffe.set_random_seed(5)
    caffe.Net(str(folder / "deploy.prototxt"), caffe.TEST).save(str(folder / "weights.caffemodel"))
    return folder


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """Return three slices of 20 x 30."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 30), np.uint8)
    write_volume(tmp_path / "stack.tif", pixels)
    return tmp_path / "stack.tif"


@pytest.fixture
def run(model: Path, stack: Path, capsys: pytest.CaptureFixture):
    """Return what runs the program in this process and gives what it printed."""

    def call(*arguments: object, stack: Path = stack) -> str:
        if "--weights" not in arguments:
            arguments += ("--weights", model)
        segment.main([str(stack), "--device", "cpu", *(str(one) for one in arguments)])
        return capsys.readouterr().out

    return call


def test_three_slices_stored_as_colour_and_one_channel_of_several(run, model, stack, tmp_path):
    pixels = read_volume(stack)
    planes = {"photometric": "rgb", "planarconfig": "separate"}
    tifffile.imwrite(tmp_path / "planes.tif", pixels, **planes)
    both = np.stack([pixels[::-1], pixels], axis=1)
    tifffile.imwrite(tmp_path / "two.tif", both, imagej=True, metadata={"axes": "ZCYX"})
    run("-o", tmp_path / "a.h5")
    run("-o", tmp_path / "b.h5", stack=tmp_path / "planes.tif")
    run("-o", tmp_path / "c.h5", "--channel", 1, stack=tmp_path / "two.tif")
    for name in ("b.h5", "c.h5"):
        np.testing.assert_array_equal(read_volume(tmp_path / name), read_volume(tmp_path / "a.h5"))


def test_frames_that_a_folder_leaves_out_are_told(run, stack, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, image in zip((0, 1, 3), read_volume(stack)):
        tifffile.imwrite(folder / f"t{number:03d}.tif", image)
    said = run("-o", tmp_path / "out.tif", stack=folder)
    told = f"{folder} leave out the numbers 2; in {tmp_path / 'out.tif'} slices are counted"
    assert told in said
    assert "leave out" not in run("-o", tmp_path / "png", stack=folder)
    (folder / "t003.tif").rename(folder / "t002.tif")
    assert "leave out" not in run("-o", tmp_path / "out.tif", stack=folder)


def test_folders_of_png_keep_the_numbers_of_their_files(run, stack, tmp_path):
    pixels, folder = read_volume(stack), tmp_path / "frames"
    folder.mkdir()
    for number, image in zip((1, 2, 4), pixels):
        tifffile.imwrite(folder / f"img_{number:03d}.tif", image)
    outputs = ("-o", tmp_path / "png", "--overlay", tmp_path / "drawn", "--dtype", "uint8")
    run(*outputs, "--instances", tmp_path / "cells.tif", stack=folder)
    names = [f"slice_000{number}.png" for number in (1, 2, 4)]
    for place in ("png", "drawn"):
        assert sorted(file.name for file in (tmp_path / place).iterdir()) == names
    run("-o", tmp_path / "all.tif", "--dtype", "uint8")
    np.testing.assert_array_equal(read_volume(tmp_path / "png"), read_volume(tmp_path / "all.tif"))
    run("-o", tmp_path / "two", "--slices", "1:3", stack=folder)
    assert sorted(file.name for file in (tmp_path / "two").iterdir()) == names[1:]
    # So that what belongs to file 4 is scored with the labels of file 4, not with the third.
    (tmp_path / "labels").mkdir()
    for number in (2, 3, 4):
        truth = np.full(pixels.shape[1:], 255, np.uint8)
        truth[:, number] = 0
        tifffile.imwrite(tmp_path / "labels" / f"label_{number:03d}.tif", truth)
    with pytest.raises(InputError, match=r"label_003\.tif has no prediction of that number"):
        unet.score(tmp_path / "labels", tmp_path / "png")


def wanted(model: Path, pixels: np.ndarray) -> np.ndarray:
    """Return the probabilities of the slices' classes, (slices, classes, height, width)."""
    files = (str(model / name) for name in ("deploy.prototxt", "weights.caffemodel"))
    net = caffe.Net(*files, caffe.TEST)
    pictures = (scale_intensity(picture[None], (0, 255)) for picture in pixels)
    tiling = Tiling.over(pixels.shape[-2:], (316, 316), Geometry())
    return np.stack([segment_image(net, p, tiling) for p in pictures])


def test_probabilities_of_the_second_class(run, model, stack, tmp_path):
    printed = run("-o", tmp_path / "out.tif")
    given = read_volume(tmp_path / "out.tif")
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, wanted(model, read_volume(stack))[:, 1], atol=1e-5)
    # The cheapest pass: 20 pixels are the output of 204, 36 that of 220.
    assert "3 slices of 20x30; each 1 version of 1 tile of 204x220" in printed
    assert f"written: {tmp_path / 'out.tif'}" in printed


def test_slices_in_which_there_is_nothing_to_see_are_told(run, stack, tmp_path):
    pixels = read_volume(stack)
    pixels[1] = 70
    write_volume(tmp_path / "flat.tif", pixels)
    printed = run("-o", tmp_path / "out.tif", "--normalise", stack=tmp_path / "flat.tif")
    assert "look at this: all pixels are of one grey value in slices 1\n" in printed
    assert "look at this" not in run("-o", tmp_path / "out.tif", "--overwrite")


@pytest.mark.parametrize("name", ["out.tif", "out.h5", "out.zarr", "out"])
def test_both_in_8_bit_in_every_format(run, model, stack, tmp_path, name):
    if name.endswith("zarr"):
        pytest.importorskip("zarr")
    classes = tmp_path / name.replace("out", "classes")
    run("-o", tmp_path / name, "--classes", classes, "--dtype", "uint8")
    likely = wanted(model, read_volume(stack))
    given = read_volume(tmp_path / name)
    assert given.dtype == np.uint8
    assert np.abs(given - likely[:, 1] * 255.0).max() <= 0.5 + 1e-2
    labels = read_volume(classes)
    sure = np.abs(likely[:, 1] - 0.5) > 1e-4
    np.testing.assert_array_equal((labels > 0)[sure], (likely[:, 1] > 0.5)[sure])
    assert labels.max() == (1 if name.endswith(("h5", "zarr")) else 255)


def test_png_is_written_in_8_bit_by_itself(run, model, stack, tmp_path):
    run("-o", tmp_path / "one.png", "--slices", "2:")
    given = np.asarray(Image.open(tmp_path / "one.png"))
    likely = wanted(model, read_volume(stack)[2:])[0, 1]
    assert given.dtype == np.uint8
    assert np.abs(given - likely * 255.0).max() <= 0.5 + 1e-2
    with pytest.raises(InputError, match="PNG holds 8 or 16 bit"):
        run("-o", tmp_path / "two.png", "--slices", "2:", "--dtype", "float32")


def test_three_classes_of_two_channels(run, tmp_path):
    (tmp_path / "net.prototxt").write_text(str(deploy_net("unet_slim", channels=2, classes=3)))
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    net.save_hdf5(str(tmp_path / "weights.h5"))
    pixels = np.random.default_rng(1).integers(0, 256, (2, 2, 20, 30), np.uint8)
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["pictures/raw"] = pixels
    with_net = ("--weights", tmp_path / "weights.h5", "--net", tmp_path / "net.prototxt")
    source = f"{tmp_path / 'two.h5'}:/pictures/raw"
    run("-o", tmp_path / "out.tif", "--classes", tmp_path / "c.tif", *with_net, stack=source)
    likely, labels = read_volume(tmp_path / "out.tif"), read_volume(tmp_path / "c.tif")
    assert likely.shape == (2, 3, 20, 30)
    np.testing.assert_allclose(likely.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(labels, likely.argmax(axis=1))
    assert labels.dtype == np.uint8


@pytest.mark.parametrize("name", ["cells.tif", "cells.h5", "cells.zarr", "cells"])
def test_cells_in_every_format(run, model, stack, tmp_path, name):
    if name.endswith("zarr"):
        pytest.importorskip("zarr")
    run("-o", tmp_path / "out.h5", "--instances", tmp_path / name)
    likely = read_volume(tmp_path / "out.h5")
    given = read_volume(tmp_path / name)
    assert given.dtype == np.uint16
    for one, cell in zip(given, likely):
        np.testing.assert_array_equal(
            one, find_instances(np.stack([1 - cell, cell]), InstanceRules())
        )
    assert given.max() > 0


def test_cells_alone_by_rules(run, model, stack, tmp_path):
    middle = float(np.median(wanted(model, read_volume(stack))[:, 1]))
    options = ["--threshold", middle, "--minimum-area", 4, "--fill-holes", "--watershed", 0.01]
    options += ["--instance-dtype", "uint32"]
    printed = run("--instances", tmp_path / "cells.tif", *options)
    assert printed.count("written:") == 1
    given = read_volume(tmp_path / "cells.tif")
    assert given.dtype == np.uint32
    rules = InstanceRules(middle, 4, True, 0.01)
    for one, likely in zip(given, wanted(model, read_volume(stack))):
        differ = one != find_instances(likely, rules)
        assert differ.mean() < 0.05
    assert given.max() > 1


def test_procedure_2015(run, model, tmp_path):
    pixels = np.random.default_rng(4).integers(0, 256, (1, 110, 130), np.uint8)
    write_volume(tmp_path / "odd.tif", pixels)
    printed = run(
        *("--procedure", "2015", "-o", tmp_path / "out.h5", "--instances", tmp_path / "cells.h5"),
        stack=tmp_path / "odd.tif",
    )
    # Half of 110 and all of 130 take 12 and 16 pixels of the lowest map.
    assert "each 4 versions of 2 tiles of 252x316" in printed
    files = (str(model / name) for name in ("deploy.prototxt", "weights.caffemodel"))
    likely = segment_image(
        caffe.Net(*files, caffe.TEST),
        pixels.astype(np.float32) / 255,
        release2015.tiling((110, 130), Geometry()),
        "mirror",
    )
    given = read_volume(tmp_path / "out.h5")[0]
    np.testing.assert_allclose(given, likely[1], atol=1e-5)
    cells = find_instances(np.stack([1 - given, given]), release2015.RULES)
    np.testing.assert_array_equal(read_volume(tmp_path / "cells.h5")[0], cells)


def test_nan_scores_are_refused(run, model, tmp_path):
    net = caffe.Net(
        *(str(model / f) for f in ("deploy.prototxt", "weights.caffemodel")), caffe.TEST
    )
    # Finite weights, but so large that both scores are infinite.
    net.params["conv_u0d-score"][0].data[...] = 3e38
    net.save(str(tmp_path / "far.caffemodel"))
    far = ("--weights", tmp_path / "far.caffemodel", "--net", model / "deploy.prototxt")
    for wanted in ("--instances", "-o"):
        with pytest.raises(InputError, match=r"far\.caffemodel: the scores .* NaN or infinite"):
            run(wanted, tmp_path / "c.tif", *far)
    assert sorted(os.listdir(tmp_path)) == ["far.caffemodel", "stack.tif"]


def test_grey_values_out_of_all_bounds_are_refused(run, model, tmp_path):
    for wanted in ("--instances", "-o"):
        with pytest.raises(InputError, match=r"stack\.tif: slice 0: .* see --grey"):
            run(wanted, tmp_path / "c.tif", "--grey", "0", "1e-37")
    assert os.listdir(tmp_path) == ["stack.tif"]


def test_slices_are_normalised_where_the_network_learnt_so(run, model, stack, tmp_path):
    pixels = read_volume(stack)
    changed = np.round(pixels * 0.5 + np.array([10.0, 60.0, 100.0])[:, None, None])
    write_volume(tmp_path / "changed.tif", changed.astype(np.float32))
    run("-o", tmp_path / "as_it_is.tif")
    model = Path(shutil.copytree(model, tmp_path / "model"))
    (model / "input.json").write_text(input_text(True))
    normal = ("--weights", model)
    run("-o", tmp_path / "a.tif", *normal)
    run("-o", tmp_path / "b.tif", *normal, stack=tmp_path / "changed.tif")
    a, b = (read_volume(tmp_path / name) for name in ("a.tif", "b.tif"))
    np.testing.assert_allclose(a, b, atol=0.02)
    assert np.abs(a - read_volume(tmp_path / "as_it_is.tif")).max() > 0.02
    run("-o", tmp_path / "c.tif", *normal, "--no-normalise")
    np.testing.assert_array_equal(
        read_volume(tmp_path / "c.tif"), read_volume(tmp_path / "as_it_is.tif")
    )
    # A range that is given is what is wanted, whatever the network learnt.
    run("-o", tmp_path / "d.tif", *normal, "--grey", 0, 255)
    np.testing.assert_array_equal(
        read_volume(tmp_path / "d.tif"), read_volume(tmp_path / "as_it_is.tif")
    )
    with pytest.raises(InputError, match="--grey and --normalise: give one of them"):
        run("-o", tmp_path / "e.tif", "--grey", 0, 255, "--normalise")


def test_bf16_gives_nearly_the_same_and_float32_where_it_gains_nothing(run, stack, tmp_path):
    run("-o", tmp_path / "b.tif", "--precision", "bf16")
    computed = caffe.get_precision()
    run("-o", tmp_path / "a.tif")
    a, b = (read_volume(tmp_path / name) for name in ("a.tif", "b.tif"))
    difference = np.abs(a - b).max()
    assert 0 < difference < 0.05 if computed == "bf16" else difference == 0


def test_intensity_range_is_that_of_the_stack_or_the_one_given(run, model, stack, tmp_path):
    pixels = read_volume(stack)
    write_volume(tmp_path / "deep.tif", pixels.astype(np.uint16) * 10 + 1000)
    run("-o", tmp_path / "a.tif", "--grey", 1000, 3550, stack=tmp_path / "deep.tif")
    np.testing.assert_allclose(
        read_volume(tmp_path / "a.tif"), wanted(model, pixels)[:, 1], atol=1e-5
    )
    # Percentiles: two far-off pixels do not count.
    spoilt = pixels.astype(np.uint16) * 10 + 1000
    spoilt[0, 3, 3:5] = 0, 65535
    write_volume(tmp_path / "spoilt.tif", spoilt)
    low, high = intensity_range(spoilt)
    assert (low, high) == pytest.approx((1000, 3550), abs=20)
    run("-o", tmp_path / "b.tif", stack=tmp_path / "spoilt.tif")
    run("-o", tmp_path / "c.tif", "--grey", low, high, stack=tmp_path / "spoilt.tif")
    run("-o", tmp_path / "d.tif", "--grey", low, 5000, stack=tmp_path / "spoilt.tif")
    b, c, d = (read_volume(tmp_path / f"{name}.tif") for name in "bcd")
    np.testing.assert_array_equal(b, c)
    assert np.abs(b - d).max() > 1e-3


def test_less_memory_means_smaller_tiles(run, tmp_path):
    write_volume(tmp_path / "wide.tif", np.zeros((1, 60, 200), np.uint8))
    printed = run("-o", tmp_path / "a.tif", stack=tmp_path / "wide.tif")
    assert "1 tile of 252x396" in printed
    printed = run("-o", tmp_path / "a.tif", "--memory", 0.015, stack=tmp_path / "wide.tif")
    assert "2 tiles of" in printed


def test_overlays(run, stack, tmp_path):
    run("-o", tmp_path / "a.tif", "--overlay", tmp_path / "one.png")
    run("-o", tmp_path / "a.tif", "--overlay", tmp_path / "all", "--truth", stack)
    names = [f"slice_000{z}.png" for z in range(3)]
    assert sorted(file.name for file in (tmp_path / "all").iterdir()) == names
    middle = np.asarray(Image.open(tmp_path / "one.png"))
    with_truth = np.asarray(Image.open(tmp_path / "all" / "slice_0001.png"))
    half = middle.shape[1] // 2 - 4
    np.testing.assert_array_equal(middle[:, :half], with_truth[:, :half])
    assert (middle != with_truth).any()
    # Labels of the chosen slices alone will do.
    write_volume(tmp_path / "labels.tif", np.ones((1, 20, 30), np.uint8))
    chosen = ("--slices", "1:2", "--truth", tmp_path / "labels.tif")
    run("-o", tmp_path / "a.tif", "--overlay", tmp_path / "two.png", *chosen)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "two.png")), middle)


def test_memory_does_not_grow_with_the_slices(run, tmp_path):
    def peak(slices: int) -> int:
        path = tmp_path / f"{slices}.tif"
        tifffile.imwrite(path, np.zeros((slices, 80, 300), np.uint8), photometric="minisblack")
        tracemalloc.start()
        run("-o", tmp_path / "out.tif", "--classes", tmp_path / "c.tif", stack=path)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)
    # The probabilities of one slice are 96 kB.
    assert peak(9) - peak(3) < 96_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tile", "500"], "tile size 500 .* nearest are 492 and 508"),
        (["--tile", "572x570"], "tile size 570 .* nearest are 556 and 572"),
        (["--tile", "188"], "tile size 188 gives 4 pixels.* take 204 or more for 20"),
        (["--tile", "big"], "--tile big: give one size or HEIGHTxWIDTH"),
        (["--tile", "20060"], "--tile 20060x20060: a pass takes about .* GB"),
        (["--memory", "0.001"], "smallest tiles, 204x204, takes about"),
        (["--memory", "0"], "--memory 0: must be above 0"),
        (["--slices", "2:9"], "--slices 2:9: give A:B with 0 <= A < B <= 3"),
        (["--slices", "2"], "--slices 2: give A:B"),
        (["--slices", "2:2"], "--slices 2:2: give A:B"),
        (["--grey", "9", "9"], "--grey 9 9: give two values"),
        (["--device", "tpu"], "device 'tpu' is neither"),
        (["--weights", "absent"], "absent: there is no such file"),
        (["--net", "absent"], "absent: there is no such file"),
        (["--truth", "absent.tif"], "absent.tif: there is no such file"),
        (["--threshold", "0.5"], "what is a cell of --instances: name that file as well"),
        (["--instances", "c.tif", "--threshold", "2"], "threshold 2: give a probability"),
        (["--instances", "c.tif", "--watershed", "1"], "watershed 1: give the depth"),
        (["--procedure", "2015", "--tile", "572"], "--procedure 2015 fixes --tile"),
        (["--procedure", "2015", "--tta", "none"], "--procedure 2015 fixes --tta"),
        (
            ["--procedure", "2015", "--instances", "c.tif", "--minimum-area", "9"],
            "--procedure 2015 fixes --minimum-area",
        ),
        (
            ["--procedure", "2015", "--memory", "0.001"],
            "--procedure 2015: a pass takes about .* leave it out",
        ),
        (["--instances", "out.tif"], "out.tif: is named for two outputs"),
        (["--instances", "c.png"], "one PNG holds one slice, not 3"),
        (["-o", "out.xyz"], "not as .xyz"),
        (["-o", "out.png"], "one PNG holds one slice, not 3"),
    ],
)
def test_what_makes_no_sense_is_refused(run, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said):
        run("-o", "out.tif", *arguments)
    assert [file.name for file in tmp_path.iterdir()] == ["stack.tif"]


def test_nothing_to_write_is_refused(run):
    with pytest.raises(InputError, match="name what to write: -o OUT, --instances FILE or"):
        run()


def test_stacks_that_are_none_are_refused(run, tmp_path):
    out = tmp_path / "out.tif"
    with pytest.raises(InputError, match=r"absent\.tif: there is no such file"):
        run("-o", out, stack=tmp_path / "absent.tif")
    (tmp_path / "text.tif").write_text("Slices of a brain")
    with pytest.raises(InputError, match=r"text\.tif: is neither TIFF"):
        run("-o", out, stack=tmp_path / "text.tif")
    write_volume(tmp_path / "colour.tif", np.zeros((2, 3, 20, 20), np.uint8))
    with pytest.raises(InputError, match=r"colour\.tif: has 3 channels .*, but grey .*--channel"):
        run("-o", out, stack=tmp_path / "colour.tif")
    gap = np.zeros((3, 20, 30), np.float32)
    gap[2, 5, 5] = np.nan
    tifffile.imwrite(tmp_path / "gap.tif", gap, photometric="minisblack")
    # Found on the way: what is done of the first slices is kept until one begins anew.
    with pytest.raises(InputError, match=r"gap\.tif: slice 2 holds NaN"):
        run("-o", out, "--grey", 0, 1, "--classes", f"{out}.h5", stack=tmp_path / "gap.tif")
    write_volume(tmp_path / "labels.tif", np.zeros((3, 20, 31), np.uint8))
    with pytest.raises(InputError, match=r"labels\.tif: is \(3, 20, 31\), but the stack is"):
        run("-o", out, "--truth", tmp_path / "labels.tif", "--overwrite")
    assert not [file for file in os.listdir(tmp_path) if "out" in file]


def test_a_place_that_cannot_be_written_is_refused_first(run, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="a part of its path is a file"):
        run("-o", tmp_path / "file" / "out.tif")
    with pytest.raises(InputError, match="a part of its path is a file"):
        run("-o", tmp_path / "out.tif", "--overlay", tmp_path / "file" / "all")
    assert sorted(os.listdir(tmp_path)) == ["file", "stack.tif"]


def test_genuine_caffe_segments_alike(run, reference, model, tmp_path):
    write_volume(tmp_path / "odd.h5", np.random.default_rng(3).random((2, 25, 61), np.float32))
    options = ["--tta", "dihedral", "--tile", "204x220", "--device", "cpu"]
    run("-o", tmp_path / "first.h5", stack=tmp_path / "odd.h5")
    middle = str(np.median(read_volume(tmp_path / "first.h5")))
    cells = ["--threshold", middle, "--watershed", "0.01", "--fill-holes", "--instances"]
    run(
        *("-o", tmp_path / "ours.h5", *options, *cells, tmp_path / "our_cells.h5"),
        stack=tmp_path / "odd.h5",
    )
    ended = subprocess.run(
        [*reference.command, str(PROGRAM), str(tmp_path / "odd.h5"), "--weights", str(model)]
        + ["-o", str(tmp_path / "theirs.h5"), *options, *cells, str(tmp_path / "their_cells.h5")],
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert ended.returncode == 0, ended.stderr
    ours, theirs = (read_volume(tmp_path / f"{name}.h5") for name in ("ours", "theirs"))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    ours, theirs = (read_volume(tmp_path / f"{name}_cells.h5") for name in ("our", "their"))
    assert ours.max() > 1
    assert (ours != theirs).mean() < 0.02
