"""Layers that read and write files, fed with the same files on both engines."""

from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import lmdb
import numpy as np
import pytest

import caffe
from tests.parity.harness import assert_close, at_once

SCRIPT = """
import sys
import numpy as np
import caffe
from exchange import give, given, text_file

results = {}
for name, text in given().items():
    net = caffe.Net(text_file(str(text)), caffe.TEST)
    if name == "memory":
        rng = np.random.RandomState(0)
        data = rng.rand(6, 2, 3, 4).astype(np.float32)
        net.set_input_arrays(data, np.arange(6, dtype=np.float32))
    for turn in range(4):
        net.forward()
        for blob, values in net.blobs.items():
            results["%s %d %s" % (name, turn, blob)] = np.array(values.data)
give(results)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Return a folder with pictures, databases, lists and a mean."""
    folder = tmp_path_factory.mktemp("data-layers")
    rng = np.random.default_rng(5)
    lines = []
    for number in range(5):
        colours = rng.integers(0, 256, (12, 10, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"a {number}.png"), colours)
        lines.append(f"a {number}.png {number * 7}\n")
    # One window of each kind, so that there is nothing to draw; the second reaches over the edge.
    (folder / "windows.txt").write_text(
        f"# 0\n{folder}/a 0.png\n3\n12\n10\n2\n4 0.9 2 3 6 8\n1 0.1 0 1 4 11\n".replace("a 0", "w")
    )
    cv2.imwrite(str(folder / "w.png"), colours)
    # Only the first and the last are what they are by thresholds of 0.8 and 0.3.
    (folder / "thresholds.txt").write_text(
        f"# 0\n{folder}/w.png\n3\n12\n10\n4\n"
        "4 0.9 2 3 6 8\n3 0.7 0 0 5 5\n2 0.4 1 2 9 9\n1 0.1 0 1 4 11\n"
    )
    (folder / "list.txt").write_text("".join(lines))
    for name, encoded in (("plain", False), ("encoded", True), ("grey", True)):
        with (
            lmdb.open(str(folder / name), map_size=1 << 20) as database,
            database.begin(write=True) as transaction,
        ):
            for number in range(5):
                picture = rng.integers(0, 256, (3, 9, 8)).astype(np.uint8)
                datum = caffe.io.array_to_datum(picture, number)
                if encoded:
                    shown = picture[0] if name == "grey" else picture.transpose(1, 2, 0)
                    datum.data = cv2.imencode(".png", shown)[1].tobytes()
                    datum.encoded = True
                transaction.put(b"%08d" % number, datum.SerializeToString())
    for number, rows in enumerate((3, 4)):
        with h5py.File(folder / f"{number}.h5", "w") as file:
            file["x"] = rng.normal(size=(rows, 2, 3)).astype(np.float32)
            file["y"] = rng.integers(0, 9, (rows, 1)).astype(np.int32)
    (folder / "one.txt").write_text(f"{folder}/0.h5\n")
    (folder / "two.txt").write_text(f"{folder}/0.h5\n{folder}/1.h5\n")
    mean = caffe.io.array_to_blobproto(rng.uniform(0, 255, (1, 3, 9, 8)))
    (folder / "mean.binaryproto").write_bytes(mean.SerializeToString())
    return folder


def layer(kind: str, tops: str, options: str) -> str:
    names = " ".join(f'top: "{top}"' for top in tops.split())
    return f'layer {{ name: "d" type: "{kind}" {names} {options} }}'


def nets(folder: Path) -> dict[str, str]:
    listed = f'source: "{folder}/list.txt" root_folder: "{folder}/" batch_size: 2'

    def database(name: str, transform: str = "", tops: str = "x y", more: str = "") -> str:
        source = f'source: "{folder}/{name}" backend: LMDB batch_size: 3 {more}'
        transform = f" transform_param {{ {transform} }}" if transform else ""
        return layer("Data", tops, f"data_param {{ {source} }}{transform}")

    return {
        "lmdb": database("plain"),
        "lmdb without labels": database("plain", tops="x"),
        "lmdb cropped": database(
            "plain", "crop_size: 5 scale: 0.5 mean_value: 10 mean_value: 20 mean_value: 30"
        ),
        "lmdb minus its mean": database(
            "plain", f'crop_size: 6 mean_file: "{folder}/mean.binaryproto"'
        ),
        "lmdb encoded": database("encoded"),
        "lmdb encoded, grey": database("encoded", "force_gray: true mean_value: 7"),
        "lmdb grey": database("grey"),
        "lmdb grey, an old field": database("grey", more="force_encoded_color: true"),
        "lmdb grey, coloured": database(
            "grey", "force_color: true crop_size: 4", more="prefetch: 2"
        ),
        "images": layer("ImageData", "x y", f"image_data_param {{ {listed} }}"),
        "images, grey, resized": layer(
            "ImageData",
            "x y",
            f"image_data_param {{ {listed} is_color: false new_height: 7 new_width: 9 }} "
            "transform_param { scale: 0.1 }",
        ),
        "hdf5": layer(
            "HDF5Data", "x y", f'hdf5_data_param {{ source: "{folder}/one.txt" batch_size: 2 }}'
        ),
        "hdf5 of two files": layer(
            "HDF5Data", "y x", f'hdf5_data_param {{ source: "{folder}/two.txt" batch_size: 5 }}'
        ),
        **{
            f"windows, {mode}, context {context}": layer(
                "WindowData",
                "x y",
                f'window_data_param {{ source: "{folder}/windows.txt" batch_size: 2 '
                f'fg_fraction: 0.5 crop_mode: "{mode}" context_pad: {context} }} '
                "transform_param { crop_size: 8 scale: 0.5 mean_value: 7 }",
            )
            for mode in ("warp", "square")
            for context in (0, 2)
        },
        "windows, thresholds": layer(
            "WindowData",
            "x y",
            f'window_data_param {{ source: "{folder}/thresholds.txt" batch_size: 4 '
            "fg_fraction: 0.5 fg_threshold: 0.8 bg_threshold: 0.3 cache_images: true } "
            "transform_param { crop_size: 8 }",
        ),
        "memory": layer(
            "MemoryData",
            "x y",
            "memory_data_param { batch_size: 2 channels: 2 height: 3 width: 4 }",
        ),
    }


def test_equal_genuine_caffe(ours, reference, files):
    given = nets(files)
    got, wanted = at_once(lambda engine: engine.run(SCRIPT, given), ours, reference)
    # A resized picture is rounded to whole grey values, by another release of OpenCV there.
    for what, one in (("resized", 0.1), ("thresholds", 1), ("windows", 0.5)):
        for name in [name for name in wanted if what in name]:
            np.testing.assert_allclose(got.pop(name), wanted.pop(name), atol=1.01 * one)
    assert_close(got, wanted, relative=1e-6)


def test_hdf5_output_equals_genuine_caffes(ours, reference, files):
    script = """
import sys
import h5py
import numpy as np
import caffe
from exchange import give, given, text_file
text = str(given()["net"])
net = caffe.Net(text_file(text), caffe.TEST)
net.forward()
del net
with h5py.File(sys.argv[3], "r") as file:
    give({name: np.array(file[name]) for name in file})
"""
    found = []
    for engine in (ours, reference):
        output = files / f"{engine.name}.h5"
        text = nets(files)["hdf5"] + (
            'layer { name: "o" type: "HDF5Output" bottom: "x" bottom: "y" '
            f'hdf5_output_param {{ file_name: "{output}" }} }}'
        )
        found.append(engine.run(script, {"net": text}, str(output)))
    assert set(found[1]) == {"data", "label"}
    for name, values in found[1].items():
        np.testing.assert_array_equal(found[0][name].ravel(), values.ravel())


@pytest.mark.parametrize("kind", ["hdf5", "images", "lmdb"])
def test_shuffled_and_mirrored_data_are_all_there_in_another_order(files, kind):
    text = nets(files)[kind].replace("batch_size: 2", "batch_size: 15")
    text = text.replace("batch_size: 3", "batch_size: 15")
    path = files / "shuffled.prototxt"
    path.write_text(text)
    plain = caffe.Net(str(path), caffe.TEST)
    plain.forward()
    if kind == "lmdb":
        path.write_text(text.replace("data_param", "transform_param { mirror: true } data_param"))
    else:
        path.write_text(text.replace("batch_size", "shuffle: true batch_size"))
    caffe.set_random_seed(1)
    shuffled = caffe.Net(str(path), caffe.TRAIN)
    shuffled.forward()
    x, y = (shuffled.blobs[name].data for name in "xy")
    wanted_x, wanted_y = (plain.blobs[name].data for name in "xy")
    assert not np.array_equal(x, wanted_x)
    if kind == "lmdb":
        mirrored = 0
        for picture, wanted in zip(x, wanted_x):
            same = np.array_equal(picture, wanted)
            assert same or np.array_equal(picture, wanted[:, :, ::-1])
            mirrored += not same
        assert 0 < mirrored < len(x)
    else:
        np.testing.assert_array_equal(np.sort(y.ravel()), np.sort(wanted_y.ravel()))


def test_a_crop_larger_than_the_picture_is_told(files):
    path = files / "wrong.prototxt"
    path.write_text(nets(files)["lmdb cropped"].replace("crop_size: 5", "crop_size: 10"))
    with pytest.raises(caffe.CaffeError, match=r"layer 'd'.*crop_size 10 exceeds the .* 9 x 8"):
        caffe.Net(str(path), caffe.TEST)
