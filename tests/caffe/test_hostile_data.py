"""Data layers and hostile data: databases, means, HDF5 and lists of files."""

from __future__ import annotations

import h5py
import lmdb
import numpy as np
import pytest

from caffe import TEST, Net
from caffe.blob_wire import blob_bytes
from caffe.errors import CaffeError
from caffe.proto import caffe_pb2


def _fails(folder, layer: str, told: str) -> None:
    path = folder / "net.prototxt"
    path.write_text(f"# a comment\n{layer}")
    with pytest.raises(CaffeError, match=rf"net\.prototxt:2:1: layer 'd' .*{told}"):
        Net(str(path), TEST)


def _data(folder, value: bytes, transform: str = "") -> str:
    with lmdb.open(str(folder / "db")) as database, database.begin(write=True) as transaction:
        transaction.put(b"0", value)
    return (
        f'layer {{ name: "d" type: "Data" top: "d" transform_param {{ {transform} }} '
        f'data_param {{ source: "{folder}/db" batch_size: 1 backend: LMDB }} }}'
    )


@pytest.mark.parametrize(
    ("datum", "told"),
    [
        (b"\xff\xff", "is no Datum"),
        (dict(channels=-1, height=-1, width=4, data=b"abcd"), r"4 values do not fill .*-1, -1, 4"),
        (dict(channels=2**30, height=2**30, width=2**30, data=b"a"), "1 values do not fill"),
        (dict(channels=1, height=1, width=1), "0 values do not fill"),
        (dict(encoded=True), "holds no picture that can be decoded"),
        (dict(encoded=True, data=b"\x89PNG\r\n\x1a\n"), "holds no picture that can be decoded"),
    ],
)
def test_a_datum_that_is_none_is_told(datum, told, tmp_path):
    if isinstance(datum, dict):
        datum = caffe_pb2.Datum(**datum).SerializeToString()
    _fails(tmp_path, _data(tmp_path, datum), f"key '0': {told}")


@pytest.mark.parametrize("shape", [(2, 1, 3, 3), (9,)])
def test_a_mean_of_no_picture_is_told(shape, tmp_path):
    (tmp_path / "mean").write_bytes(b"".join(blob_bytes(np.ones(shape))))
    layer = _data(tmp_path, b"", f'mean_file: "{tmp_path}/mean"')
    _fails(tmp_path, layer, r"the mean of .*mean is of shape")


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda file: file.create_group("d"), "no data set 'd'"),
        (lambda file: file.create_dataset("d", data=b"text"), "cannot be read"),
        (lambda file: file.create_dataset("d", (2**50,), "f4"), "cannot be read"),
        (lambda file: file.create_dataset("d", data=1.0), "equally many rows"),
    ],
)
def test_hdf5_without_rows_is_told(build, told, tmp_path):
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        build(file)
    (tmp_path / "list").write_text(f"{tmp_path}/rows.h5\n")
    source = f'hdf5_data_param {{ source: "{tmp_path}/list" batch_size: 1 }}'
    _fails(tmp_path, f'layer {{ name: "d" type: "HDF5Data" top: "d" {source} }}', told)


def _virtual(file) -> None:
    layout = h5py.VirtualLayout((2, 3), "f4")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (2, 3))
    file.create_virtual_dataset("d", layout)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (
            lambda file: file.create_dataset("d", (8,), "u1", external=[("/etc/passwd", 0, 8)]),
            "lies in another file",
        ),
        (_virtual, "lies in another file"),
        (lambda file: file.update({"d": h5py.ExternalLink("/etc/x", "d")}), "link out of the file"),
        (lambda file: file.update({"d": h5py.SoftLink("/d")}), "in a circle"),
        (lambda file: file.update({"d": h5py.SoftLink("/none")}), "has no data set 'd'"),
    ],
)
def test_rows_that_lie_elsewhere_are_refused(build, told, tmp_path):
    test_hdf5_without_rows_is_told(build, told, tmp_path)


def test_rows_under_another_name_in_the_file_are_read(tmp_path):
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file["group/rows"] = np.float32([[1, 2], [3, 4]])
        file["d"] = h5py.SoftLink("group/rows")
    (tmp_path / "list").write_text(f"{tmp_path}/rows.h5\n")
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "d" type: "HDF5Data" top: "d" '
        f'hdf5_data_param {{ source: "{tmp_path}/list" batch_size: 2 }} }}'
    )
    net = Net(str(tmp_path / "net.prototxt"), TEST)
    assert net.forward()["d"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    "layer",
    [
        'type: "HDF5Data" top: "d" hdf5_data_param { batch_size: 1 source: "LIST" }',
        'type: "ImageData" top: "d" top: "l" image_data_param { batch_size: 1 source: "LIST" }',
        'type: "WindowData" top: "d" top: "l" transform_param { crop_size: 2 } '
        'window_data_param { batch_size: 1 source: "LIST" }',
    ],
)
def test_lists_that_are_none_are_told(layer, tmp_path):
    (tmp_path / "latin").write_bytes(b"a\xe4")
    for source, told in (
        ("/dev/zero", "is no regular file"),
        (tmp_path / "missing", "No such file"),
        (tmp_path / "latin", r"no text in UTF-8 \(byte 1\)"),
        ("a\\000b", "is no name of a file"),
    ):
        _fails(tmp_path, f'layer {{ name: "d" {layer.replace("LIST", str(source))} }}', told)
