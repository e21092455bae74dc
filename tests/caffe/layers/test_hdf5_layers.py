"""HDF5Data and HDF5Output where they do more than BVLC Caffe's: as the nets of caffe_unet need."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest

import caffe
from caffe.errors import CaffeError
from caffe.layers.hdf5_data import HDF5Data

DATA = (
    "layer { name: 'in' type: 'HDF5Data' top: 'data3' top: 'labels' top: 'weights' "
    "hdf5_data_param { source: '%s' batch_size: %d } }\n"
)


def write(folder, name: str, rows: int, shape: tuple[int, int], more: int = 4):
    """Write a file as the plugin does: labels are smaller than the data around them."""
    random = np.random.default_rng(len(name))
    height, width = shape
    with h5py.File(folder / name, "w") as file:
        file["data3"] = random.random((rows, 2, height + more, width + more), np.float32)
        file["labels"] = random.integers(0, 2, (rows, 1, height, width)).astype(np.float32)
        file["weights"] = random.random((rows, 1, height, width), np.float32)
    with (folder / "list.txt").open("a") as file:
        file.write(f"{folder / name}\n")
    with h5py.File(folder / name) as file:
        return {key: file[key][:] for key in file}


def open_net(folder, text: str) -> caffe.Net:
    (folder / "net.prototxt").write_text(text)
    return caffe.Net(str(folder / "net.prototxt"), caffe.TEST)


def test_batches_take_the_shape_that_rows_of_their_file_have(tmp_path):
    files = [write(tmp_path, "a.h5", 2, (6, 8)), write(tmp_path, "long.h5", 1, (9, 5))]
    net = open_net(
        tmp_path,
        DATA
        % (tmp_path / "list.txt", 1)
        + "layer { name: 'pool' type: 'Pooling' bottom: 'data3' top: 'p' pooling_param "
        "{ kernel_size: 2 } }",
    )
    expected = [
        {key: rows[i : i + 1] for key, rows in file.items()} for file in files for i in (0, 1)
    ]
    for row in [*expected[:3], *expected[:3]]:
        net.forward()
        for name in ("data3", "labels", "weights"):
            np.testing.assert_array_equal(net.blobs[name].data, row[name])
        height, width = row["data3"].shape[2:]
        assert net.blobs["p"].shape == (1, 2, height - 1, width - 1)


def test_rows_of_two_shapes_do_not_make_one_batch(tmp_path):
    for name, shape in (("a.h5", (6, 8)), ("b.h5", (6, 9))):
        write(tmp_path, name, 1, shape)
    net = open_net(tmp_path, DATA % (tmp_path / "list.txt", 2))
    with pytest.raises(CaffeError, match=r"'in'.*rows of 'data3' are .* a batch_size of 1"):
        net.forward()


def output(param: str, bottoms: str) -> str:
    return (
        "layer { name: 'x' type: 'DummyData' top: 'x' top: 'y' dummy_data_param { shape { dim: 1 "
        "dim: 1 dim: 3 dim: 4 } shape { dim: 1 dim: 2 dim: 3 dim: 4 } data_filler { value: 1 } "
        "data_filler { value: 2 } } }\n"
        f"layer {{ name: 'out' type: 'HDF5Output' {bottoms} hdf5_output_param {{ {param} }} }}"
    )


@pytest.mark.parametrize("squeeze", [False, True])
def test_outputs_have_the_names_and_axes_that_are_asked_for(tmp_path, squeeze):
    path = tmp_path / "out.h5"
    param = f"file_name: '{path}' dset_name: 'score' dset_name: 'maps/two'"
    if squeeze:
        param += " squeeze: true"
    open_net(tmp_path, output(param, "bottom: 'x' bottom: 'y'")).forward()
    with h5py.File(path) as file:
        one, two = file["score"][:], file["maps/two"][:]
    assert one.shape == ((3, 4) if squeeze else (1, 1, 3, 4))
    assert two.shape == ((2, 3, 4) if squeeze else (1, 2, 3, 4))
    assert (one == 1).all()
    assert (two == 2).all()


@pytest.mark.parametrize(
    ("param", "bottoms", "told"),
    [
        ("dset_name: 'a'", "bottom: 'x' bottom: 'y'", "one dset_name per bottom: 2 bottom"),
        ("", "bottom: 'x'", "2 bottoms, or dset_name"),
        ("dset_name: 'a' dset_name: 'a'", "bottom: 'x' bottom: 'y'", "given twice"),
    ],
)
def test_names_that_do_not_fit_the_bottoms_are_refused(tmp_path, param, bottoms, told):
    with pytest.raises(CaffeError, match=f"'out'.*{told}"):
        open_net(tmp_path, output(f"file_name: 'o.h5' {param}", bottoms))


def test_files_are_read_once_and_again_when_they_have_changed(tmp_path, monkeypatch):
    write(tmp_path, "a.h5", 1, (4, 4))
    write(tmp_path, "b.h5", 1, (4, 4))
    read, paths = HDF5Data._read, []

    def noted(self: HDF5Data, path: str) -> list[np.ndarray]:
        paths.append(path)
        return read(self, path)

    monkeypatch.setattr(HDF5Data, "_read", noted)
    net = open_net(tmp_path, DATA % (tmp_path / "list.txt", 1))
    for _ in range(4):
        net.forward()
    assert paths == [f"{tmp_path}/a.h5", f"{tmp_path}/b.h5"]
    with h5py.File(tmp_path / "b.h5", "r+") as file:
        file["labels"][...] = 7
    os.utime(tmp_path / "b.h5", ns=(1, 1))
    net.forward()
    net.forward()
    assert (net.blobs["labels"].data == 7).all()


def test_what_is_written_into_a_batch_does_not_come_back_with_the_next_round(tmp_path):
    write(tmp_path, "a.h5", 1, (4, 4))
    write(tmp_path, "b.h5", 1, (4, 4))
    net = open_net(tmp_path, DATA % (tmp_path / "list.txt", 1))
    net.forward()
    first = net.blobs["data3"].data.copy()
    net.blobs["data3"].data[...] = 9
    net.forward()
    net.forward()
    np.testing.assert_array_equal(net.blobs["data3"].data, first)
