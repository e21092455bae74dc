"""Data layers and hostile data: databases, means, HDF5 and lists of files."""

from __future__ import annotations

import cv2
import h5py
import lmdb
import numpy as np
import pytest

from caffe import TEST, Net
from caffe.errors import CaffeError
from caffe.files.wire import blob_bytes
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


def _virtual(file) -> None:
    layout = h5py.VirtualLayout((2, 3), "f4")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (2, 3))
    file.create_virtual_dataset("d", layout)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda file: file.create_group("d"), "no data set 'd'"),
        (lambda file: file.create_dataset("d", data=b"text"), "cannot be read"),
        (lambda file: file.create_dataset("d", (2**50,), "f4"), "cannot be read"),
        (lambda file: file.create_dataset("d", data=1.0), "'d' is a single value, not rows"),
        (lambda file: file.create_dataset("d", (0, 1, 4, 4)), "data set 'd' has no rows"),
        # What lies elsewhere.
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
def test_hdf5_without_rows_is_told(build, told, tmp_path):
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        build(file)
    (tmp_path / "list").write_text(f"{tmp_path}/rows.h5\n")
    source = f'hdf5_data_param {{ source: "{tmp_path}/list" batch_size: 1 }}'
    _fails(tmp_path, f'layer {{ name: "d" type: "HDF5Data" top: "d" {source} }}', told)


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


# Layers that read lists, and what a line of theirs has.
LISTS = {
    'type: "HDF5Data" top: "d" hdf5_data_param { batch_size: 1 source: "LIST" }': (
        "the path of an HDF5 file"
    ),
    'type: "ImageData" top: "d" top: "l" image_data_param { batch_size: 1 source: "LIST" }': (
        "the path of a picture and a label"
    ),
    'type: "WindowData" top: "d" top: "l" transform_param { crop_size: 2 } '
    'window_data_param { batch_size: 1 source: "LIST" }': "a picture or a window",
}


@pytest.mark.parametrize("layer", LISTS)
def test_lists_that_are_none_are_told(layer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin").write_bytes(b"a\xe4")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["d"] = np.ones((3, 1))
    cv2.imwrite(str(tmp_path / "x.png"), np.ones((4, 4), np.uint8))
    _data(tmp_path, b"")
    remedy = f"; source names a text file, of which each line has {LISTS[layer]}"
    for source, told in (
        ("/dev/zero", f"is not a regular file{remedy}"),
        (tmp_path / "missing", f"missing: no such file{remedy}"),
        ("missing", f"missing: no such file in the working folder {tmp_path}{remedy}"),
        (tmp_path / "latin", rf"is not text in UTF-8 \(byte 1\){remedy}"),
        ("a\\000b", "is not the name of a file"),
        (tmp_path / "x.h5", f"x.h5: is an HDF5 file, not a list{remedy}"),
        (tmp_path / "x.png", rf"x.png: is a picture \(PNG\), not a list{remedy}"),
        (tmp_path, f": is a folder, not a regular file{remedy}"),
        (tmp_path / "db", f": is an LMDB database, not a regular file{remedy}"),
    ):
        _fails(tmp_path, f'layer {{ name: "d" {layer.replace("LIST", str(source))} }}', told)


@pytest.mark.parametrize("layer", LISTS)
def test_what_a_list_names_is_told_by_its_kind_and_with_the_list(layer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["d"] = np.ones((3, 1))
    cv2.imwrite(str(tmp_path / "x.png"), np.ones((4, 4), np.uint8))
    (tmp_path / "text").write_text("some text")
    kind, line, other, found = {
        "HDF5": ("an HDF5 file", "{path}", "x.png", r"a picture \(PNG\)"),
        "Imag": ("a picture", "{path} 1", "x.h5", "an HDF5 file"),
        "Wind": (
            "a picture",
            "# 0 {path} 3 4 4 2 1 0.9 0 0 3 3 1 0 0 0 3 3",
            "x.h5",
            "an HDF5 file",
        ),
    }[layer[7:11]]
    for path, told in (
        ("nowhere", f"nowhere: no such file in the working folder {tmp_path}"),
        (other, f"{other}: is {found}, not {kind}"),
        ("text", f"text: is not {kind}"),
    ):
        (tmp_path / "list").write_text(line.format(path=path))
        net = tmp_path / "net.prototxt"
        net.write_text(f'layer {{ name: "d" {layer.replace("LIST", "list")} }}')
        with pytest.raises(CaffeError, match=f"layer 'd' .*{told}.*; it is named in list$"):
            Net(str(net), TEST).forward()


def test_what_is_not_the_folder_of_a_database_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _data(tmp_path, caffe_pb2.Datum(channels=1, height=1, width=1, data=b"a").SerializeToString())
    (tmp_path / "level").mkdir()
    (tmp_path / "level" / "CURRENT").touch()
    (tmp_path / "empty").mkdir()
    cv2.imwrite(str(tmp_path / "x.png"), np.ones((4, 4), np.uint8))
    wanted = "not the folder of an LMDB database"
    for backend in ("backend: LMDB", "backend: LEVELDB", ""):
        for source, told in (
            ("nowhere", f"nowhere: no such file in the working folder {tmp_path}; source names"),
            ("level", "'level' is a LevelDB database, which this engine cannot read"),
            ("empty", f"empty: is a folder, {wanted}"),
            ("x.png", rf"x.png: is a picture \(PNG\), {wanted}"),
            ("db/data.mdb", f"data.mdb: is the file of an LMDB database, {wanted}"),
            ("net.prototxt", f"net.prototxt: is {wanted}"),
            ("db", "'db' is an LMDB database: give backend: LMDB"),
        ):
            if source == "db" and backend == "backend: LMDB":
                continue
            layer = f'data_param {{ source: "{source}" batch_size: 1 {backend} }}'
            _fails(tmp_path, f'layer {{ name: "d" type: "Data" top: "d" {layer} }}', told)
