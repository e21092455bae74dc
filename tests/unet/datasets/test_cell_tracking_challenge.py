"""Data of the cell tracking challenge is found, unpacked, checked or refused."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.unet.ctc_cases import write_picture
from tests.unet.datasets.test_download import server
from unet.datasets import cell_tracking_challenge as ctc
from unet.errors import InputError

SIZE = (20, 30)
NAME = "phc-u373"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A data set of small frames; no waiting for servers, no folder of the user's."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.delenv("CTC_DIR", raising=False)
    known = ctc.DATASETS[NAME]._replace(size=SIZE, sha256=None)
    monkeypatch.setitem(ctc.DATASETS, NAME, known)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Sequence 01 with silver truth, and 02 without; numbers of four digits."""
    folder = tmp_path_factory.mktemp("any") / "PhC-C2DH-U373"
    rng = np.random.default_rng(0)

    for sequence in ("01", "02"):
        for number in range(3):
            write_picture(
                folder / f"{sequence}/t{number:04d}.tif",
                rng.integers(0, 255, SIZE).astype(np.uint8),
            )
            cells = rng.integers(0, 3, SIZE).astype(np.uint16)
            write_picture(folder / f"{sequence}_GT/TRA/man_track{number:04d}.tif", cells)
            if sequence == "01":
                write_picture(folder / f"01_ST/SEG/man_seg{number:04d}.tif", cells)
        write_picture(folder / f"{sequence}_GT/SEG/man_seg0002.tif", cells)
        (folder / f"{sequence}_GT" / "TRA" / "man_track.txt").write_text("1 0 2 0\n2 0 2 0\n")
    (folder / "notes.txt").write_text("of somebody else")
    return folder


def pack(folder: Path, prefix: str = "PhC-C2DH-U373/") -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, prefix + path.relative_to(folder).as_posix())
    return packed.getvalue()


def files(folder: Path) -> dict:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".zip"
    }


@pytest.fixture
def wanted(dataset):
    return {name: content for name, content in files(dataset).items() if name != "notes.txt"}


def test_what_is_there(dataset):
    assert [tuple(found)[1:] for found in ctc.check(NAME, dataset)] == [(3, 1, 3, 3, 2)] + [
        (3, 1, 0, 3, 2)
    ]


def test_from_a_folder_or_one_that_holds_it(tmp_path, dataset, wanted):
    for number, source in enumerate((dataset, dataset.parent)):
        target = tmp_path / str(number)
        found = ctc.fetch(NAME, target, source)
        assert found == {"01": target / "01", "02": target / "02"}
        assert files(target) == wanted


def test_from_the_variable_unless_it_is_there(tmp_path, dataset, wanted, monkeypatch):
    monkeypatch.setenv("CTC_DIR", str(dataset.parent))
    assert list(ctc.fetch(NAME, tmp_path)) == ["01", "02"]
    assert files(tmp_path) == wanted
    monkeypatch.setenv("CTC_DIR", str(tmp_path / "nowhere"))
    assert list(ctc.fetch(NAME, tmp_path)) == ["01", "02"]


def test_a_source_replaces_its_files_and_nothing_else(tmp_path, dataset, wanted):
    others = {"phc.h5": b"made of it", "01/notes.txt": b"mine", "02_GT/SEG/mine/x.tif": b"mine"}
    for name, content in {**others, "01/t0002.tif": b"old"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    before = files(tmp_path)
    with pytest.raises(InputError, match=r"01/t0002\.tif: differs from what .* --overwrite"):
        ctc.fetch(NAME, tmp_path, dataset)
    assert files(tmp_path) == before
    for source, overwrite in ((dataset, True), (dataset, False), (tmp_path, False)):
        ctc.fetch(NAME, tmp_path, source, overwrite)
        assert files(tmp_path) == {**wanted, **others}


def test_frames_that_the_source_lacks_are_neither_lost_nor_mixed_with_its_own(tmp_path, dataset):
    ctc.fetch(NAME, tmp_path, dataset)
    (tmp_path / "01" / "t0003.tif").write_bytes((tmp_path / "01" / "t0002.tif").read_bytes())
    before = files(tmp_path)
    with pytest.raises(InputError, match=r"t0003\.tif: is not in .*; move it away"):
        ctc.fetch(NAME, tmp_path, dataset)
    assert files(tmp_path) == before


def test_a_link_to_a_sequence_elsewhere_leaves_that_as_it_is(tmp_path, dataset, wanted):
    shutil.copytree(dataset / "01", tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "t0001.tif").write_text("changed")
    before = files(tmp_path / "elsewhere")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "01").symlink_to(tmp_path / "elsewhere")
    ctc.fetch(NAME, tmp_path / "here", dataset)
    assert files(tmp_path / "here") == wanted
    assert files(tmp_path / "elsewhere") == before


@pytest.mark.parametrize(
    "damaged",
    ["01/t0001.tif", "01_GT/SEG/man_seg0002.tif", "01_ST/SEG/man_seg0001.tif"]
    + ["02_GT/TRA/man_track0002.tif", "02_GT/TRA/man_track.txt"],
)
@pytest.mark.parametrize("packs", [False, True])
def test_a_damaged_source_leaves_what_is_there(tmp_path, dataset, damaged, packs):
    ctc.fetch(NAME, tmp_path / "here", dataset)
    before = files(tmp_path / "here")
    shutil.copytree(dataset, tmp_path / "bad")
    path = tmp_path / "bad" / damaged
    path.write_bytes(path.read_bytes()[:-20] if path.suffix == ".tif" else b"1 2\n")
    source = tmp_path / "bad"
    if packs:
        source = tmp_path / "bad.zip"
        source.write_bytes(pack(tmp_path / "bad"))
    with pytest.raises(InputError, match=f"{source}"):
        ctc.fetch(NAME, tmp_path / "here", source)
    assert files(tmp_path / "here") == before


def test_a_zip_with_two_data_sets_is_refused(tmp_path, dataset):
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as file:
        for prefix in ("a", "b"):
            file.write(dataset / "01" / "t0000.tif", f"{prefix}/01/t0000.tif")
    with pytest.raises(InputError, match=r"two\.zip: holds 01/t0000\.tif twice"):
        ctc.fetch(NAME, tmp_path / "new", tmp_path / "two.zip")


@pytest.mark.parametrize("prefix", ["PhC-C2DH-U373/", "", "../../", "/etc/"])
def test_from_a_zip_wherever_it_wants_to_be_unpacked(tmp_path, dataset, wanted, prefix):
    (tmp_path / "any.zip").write_bytes(pack(dataset, prefix))
    ctc.fetch(NAME, tmp_path / "deep" / "out", tmp_path / "any.zip")
    assert files(tmp_path / "deep" / "out") == wanted
    assert sorted(os.listdir(tmp_path)) == ["any.zip", "deep"]


def test_from_a_zip_that_windows_packed(tmp_path, dataset, wanted):
    with zipfile.ZipFile(tmp_path / "any.zip", "w") as file:
        for name, data in wanted.items():
            member = zipfile.ZipInfo("x")
            member.filename = f"PhC-C2DH-U373/{name}".replace("/", "\\").replace(".tif", ".TIF")
            file.writestr(member, data)
    ctc.fetch(NAME, tmp_path / "out", tmp_path / "any.zip")
    assert files(tmp_path / "out") == wanted


def test_from_a_folder_with_names_in_capitals(tmp_path, dataset, wanted):
    for name, data in wanted.items():
        place = tmp_path / "in" / (name.upper() if name.startswith("02") else name)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    ctc.fetch(NAME, tmp_path / "out", tmp_path / "in")
    assert files(tmp_path / "out") == wanted


def test_downloaded_in_two_pieces_and_then_kept(tmp_path, dataset, wanted, monkeypatch):
    archive = pack(dataset)
    half = len(archive) // 2
    with server(archive, break_off=(half,)) as (url, seen):
        serve(monkeypatch, url, hashlib.sha256(archive).hexdigest())
        for _ in range(2):
            ctc.fetch(NAME, tmp_path)
    assert files(tmp_path) == wanted
    assert len(seen) == 2
    assert seen[0] is None


def serve(monkeypatch, url, sha256=None):
    known = ctc.DATASETS[NAME]._replace(address=url.rsplit("/", 1)[0] + "/", sha256=sha256)
    monkeypatch.setitem(ctc.DATASETS, NAME, known)


def test_another_archive_than_the_challenge_s(tmp_path, dataset, monkeypatch):
    with server(pack(dataset)) as (url, _):
        serve(monkeypatch, url, "0" * 64)
        with pytest.raises(InputError, match="is not the file expected"):
            ctc.fetch(NAME, tmp_path)
    assert not files(tmp_path)


@pytest.mark.parametrize("status", [404, 503])
def test_no_data_is_one_sentence_with_address_and_remedies(tmp_path, monkeypatch, status):
    with server(status=status) as (url, _), pytest.raises(InputError) as caught:
        serve(monkeypatch, url)
        ctc.fetch(NAME, tmp_path / "phc")
    address = url.rsplit("/", 1)[0] + "/PhC-C2DH-U373.zip"
    for needed in (address, str(status), str(tmp_path / "phc"), "CTC_DIR"):
        assert needed in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sources_without_the_data(tmp_path):
    with pytest.raises(InputError, match="nowhere: there is no such folder or zip"):
        ctc.fetch(NAME, tmp_path / "out", tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds neither sequences .* nor PhC-C2DH-U373 nor"):
        ctc.fetch(NAME, tmp_path / "out", tmp_path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("readme.txt", "nothing")
    with pytest.raises(InputError, match=r"a\.zip: holds no sequence \(01, 02\) of PhC"):
        ctc.fetch(NAME, tmp_path / "out", tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda d: (d / "02" / "t0001.tif").unlink(), r"bad: 02 lacks t001\.tif"),
        (lambda d: shutil.rmtree(d / "01"), None),
        (
            lambda d: tifffile.imwrite(d / "02" / "t0000.tif", np.zeros((5, 6), np.uint8)),
            r"bad: frames of 02 are uint8 of \(5, 6\), not uint8 of \(20, 30\)",
        ),
        (
            lambda d: tifffile.imwrite(d / "02" / "t0000.tif", np.zeros(SIZE, np.uint16)),
            r"bad: frames of 02 are uint16",
        ),
        (
            lambda d: (d / "02" / "t0002.tif").unlink(),
            r"bad/02: has no frame 2, which .*bad/02_GT/SEG/man_seg0002\.tif annotates",
        ),
        (
            lambda d: (d / "02_GT" / "TRA" / "man_track.txt").write_text("1 2\n"),
            r"bad/02_GT/TRA/man_track\.txt, line 1: '1 2' is not four whole numbers",
        ),
    ],
)
def test_damaged_sequences_are_not_taken(tmp_path, dataset, harm, message):
    shutil.copytree(dataset, tmp_path / "bad")
    harm(tmp_path / "bad")
    if message is None:
        # Half of the data set is still something to train on.
        assert list(ctc.fetch(NAME, tmp_path / "out", tmp_path / "bad")) == ["02"]
        return
    with pytest.raises(InputError, match=message):
        ctc.fetch(NAME, tmp_path / "out", tmp_path / "bad")
    assert not files(tmp_path / "out")


def test_the_other_data_set(tmp_path, dataset):
    with pytest.raises(InputError, match=r"not uint8 of \(512, 512\) as in DIC-C2DH-HeLa"):
        ctc.fetch("dic-hela", tmp_path, dataset)


def test_the_real_sequence(tmp_path, shared_data, monkeypatch):
    known = ctc.DATASETS[NAME]._replace(size=(520, 696))
    monkeypatch.setitem(ctc.DATASETS, NAME, known)
    ctc.fetch(NAME, tmp_path, shared_data)
    assert ctc.describe(NAME, tmp_path) == [
        f"{tmp_path}/02: 115 frames; cells drawn in 19 (GT) and 0 (ST); markers in 115, 12 tracks"
    ]
    assert len(files(tmp_path)) == 115 + 19 + 115 + 1


def test_a_zip_of_zeros_takes_no_memory(tmp_path, dataset):
    (tmp_path / "a.zip").write_bytes(pack(dataset))
    with zipfile.ZipFile(tmp_path / "a.zip", "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("02/t0003.tif", bytes(100 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"02/t0003\.tif would unpack to 104,857,600 bytes"):
            ctc.fetch(NAME, tmp_path / "out", tmp_path / "a.zip")
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    assert not files(tmp_path / "out")
