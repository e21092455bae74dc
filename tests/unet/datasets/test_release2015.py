"""The authors' release is found, unpacked, checked or refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

from caffe.proto import caffe_pb2
from tests import release2015 as made
from tests.unet.datasets.test_cell_tracking_challenge import files
from tests.unet.datasets.test_download import server
from unet.datasets import release2015
from unet.errors import InputError

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 20, 30)).astype(np.uint8)
UNPACKED = ["PhC-C2DH-U373", "phseg_v5-train.prototxt", "phseg_v5.caffemodel"]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    return made.write_release(tmp_path_factory.mktemp("made"), 1, FRAMES)


@pytest.fixture(scope="module")
def packed(release) -> bytes:
    return made.pack(release)


def check(folder: Path, release: Path) -> None:
    """Check that a folder holds what is used of the release, and no more."""
    assert sorted(path.name for path in folder.iterdir()) == UNPACKED
    for name in UNPACKED[1:]:
        assert (folder / name).read_bytes() == (release / name).read_bytes()
    sequence = folder / "PhC-C2DH-U373" / "01"
    frames = [tifffile.imread(path) for path in sorted(sequence.iterdir())]
    assert np.array_equal(frames, FRAMES)


def test_from_a_folder_and_not_again(tmp_path, release):
    found = release2015.fetch(tmp_path / "new", release)
    check(tmp_path / "new", release)
    assert found == release2015.fetch(tmp_path / "new")
    assert found.sequences == {tmp_path / "new" / "PhC-C2DH-U373" / "01": 3}


@pytest.mark.parametrize("unpack", [bytes, gzip.decompress])
def test_from_an_archive(tmp_path, release, packed, unpack):
    (tmp_path / "local").write_bytes(unpack(packed))
    release2015.fetch(tmp_path / "new", tmp_path / "local")
    check(tmp_path / "new", release)


def test_downloaded_and_checked(tmp_path, release, packed):
    checksum = hashlib.sha256(packed).hexdigest()
    with server(packed, break_off=(len(packed) // 3,)) as (url, seen):
        release2015.fetch(tmp_path, url=url, sha256=checksum)
        (tmp_path / url.rsplit("/", 1)[1]).unlink()
    check(tmp_path, release)
    assert len(seen) == 2


def test_where_nothing_answers_the_remedy_is_told(tmp_path):
    with server(status=404) as (url, _), pytest.raises(InputError, match=r"404.*--from"):
        release2015.fetch(tmp_path, url=url)


@pytest.mark.parametrize(
    "name", ["../../phseg_v5.caffemodel", "/tmp/phseg_v5.caffemodel", "a/../../phseg_v5.caffemodel"]
)
def test_members_stay_in_the_folder(tmp_path, release, name):
    weights = release / "phseg_v5.caffemodel"
    with tarfile.open(tmp_path / "local.tar.gz", "w:gz") as archive:
        archive.add(release / "phseg_v5-train.prototxt")
        archive.add(weights, name)
    found = release2015.fetch(tmp_path / "deep" / "new", tmp_path / "local.tar.gz")
    assert found.weights.read_bytes() == weights.read_bytes()
    assert not (tmp_path / "phseg_v5.caffemodel").exists()
    assert not Path("/tmp/phseg_v5.caffemodel").exists()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["new"]


def cut_weights(folder: Path) -> None:
    path = folder / "phseg_v5.caffemodel"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def no_weights(folder: Path) -> None:
    (folder / "phseg_v5.caffemodel").write_bytes(
        caffe_pb2.NetParameter(name="a").SerializeToString()
    )


def fewer_numbers(folder: Path) -> None:
    path = folder / "phseg_v5.caffemodel"
    message = caffe_pb2.NetParameter.FromString(path.read_bytes())
    next(layer for layer in message.layers if layer.blobs).blobs[0].data.pop()
    path.write_bytes(message.SerializeToString())


def cut_frame(folder: Path) -> None:
    path = sorted((folder / "PhC-C2DH-U373" / "01").iterdir())[1]
    path.write_bytes(path.read_bytes()[:-50])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_weights, "(is no whole .caffemodel|the file is damaged)"),
        (no_weights, "holds no weights"),
        (fewer_numbers, r"layer '[^']+' has \d+ numbers of \d+: the file is damaged"),
        (cut_frame, r"slice 1|is cut off|t001\.tif"),
    ],
)
def test_a_damaged_source_leaves_what_is_there(tmp_path, release, damage, message):
    release2015.fetch(tmp_path / "here", release)
    before = files(tmp_path / "here")
    shutil.copytree(release, tmp_path / "bad")
    damage(tmp_path / "bad")
    with pytest.raises(InputError, match=message):
        release2015.fetch(tmp_path / "here", tmp_path / "bad")
    assert files(tmp_path / "here") == before


def test_a_target_that_lies_in_its_source(tmp_path, release):
    shutil.copytree(release, tmp_path / "all")
    target = tmp_path / "all" / "data" / "release"
    for _ in range(2):
        release2015.fetch(target, tmp_path / "all")
        check(target, release)


@pytest.mark.parametrize("packs", [False, True])
def test_a_source_with_two_of_a_kind_is_refused(tmp_path, release, packs):
    source = tmp_path / "two"
    shutil.copytree(release, source / "a")
    shutil.copytree(release, source / "b")
    if packs:
        with tarfile.open(tmp_path / "two.tar.gz", "w:gz") as archive:
            archive.add(source)
        source = tmp_path / "two.tar.gz"
    with pytest.raises(InputError, match=r"two.*: holds .* twice"):
        release2015.fetch(tmp_path / "new", source)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, release, kind):
    info = tarfile.TarInfo("u-net-release/PhC-C2DH-U373/01/t003.tif")
    info.type, info.linkname = kind, "/etc/passwd"
    with tarfile.open(tmp_path / "local.tar.gz", "w:gz") as archive:
        archive.add(release, made.FOLDER)
        archive.addfile(info)
    with pytest.raises(InputError, match=r"t003.tif is a link or device"):
        release2015.fetch(tmp_path / "new", tmp_path / "local.tar.gz")
    assert not (tmp_path / "new").exists()


def test_broken_archives_leave_nothing(tmp_path, packed):
    for number, data in enumerate([packed[: len(packed) // 2], b"no archive", b"", packed[:2]]):
        path = tmp_path / f"{number}.tar.gz"
        path.write_bytes(data)
        with pytest.raises(InputError, match=rf"{number}.tar.gz: (is no whole|has no)"):
            release2015.fetch(tmp_path / "new", path)
        assert not (tmp_path / "new").exists()


def test_other_things_are_told(tmp_path):
    with pytest.raises(InputError, match=r"absent: there is no such"):
        release2015.fetch(tmp_path / "new", tmp_path / "absent")
    (tmp_path / "phseg_v5-train.prototxt").write_text('layer { type: "ReLU" }\n')
    with pytest.raises(InputError, match=r"has no phseg_v5.caffemodel"):
        release2015.fetch(tmp_path / "new", tmp_path)
    (tmp_path / "phseg_v5.caffemodel").write_bytes(b"weights")
    with pytest.raises(InputError, match=r"no network in the V1 format"):
        release2015.fetch(tmp_path / "new", tmp_path)


def with_member(release: Path, info: tarfile.TarInfo, content: bytes = b"") -> bytes:
    """Return the archive with one more member."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(release, made.FOLDER)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def test_what_unpacks_to_too_much_is_refused(tmp_path, release, monkeypatch):
    monkeypatch.setattr(release2015, "_LARGEST_ARCHIVE", 1 << 20)
    data = with_member(release, tarfile.TarInfo("zeros"), bytes(1 << 22))
    assert len(data) < 1 << 20
    (tmp_path / "local.tar.gz").write_bytes(data)
    with pytest.raises(InputError, match=r"more than 1,048,576 bytes"):
        release2015.fetch(tmp_path / "new", tmp_path / "local.tar.gz")
    assert not (tmp_path / "new").exists()
