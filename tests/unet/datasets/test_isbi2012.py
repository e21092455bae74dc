"""The ISBI stack is found, unpacked, checked or refused."""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.unet.datasets.test_cell_tracking_challenge import files
from tests.unet.datasets.test_download import server
from unet.datasets import isbi2012
from unet.errors import InputError
from unet.volumes import read_volume, write_volume


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.delenv("ISBI_DIR", raising=False)


@pytest.fixture(scope="module")
def stacks(tmp_path_factory):
    """Stacks like the real ones in shape, type and values."""
    folder = tmp_path_factory.mktemp("isbi")
    grey = np.random.default_rng(0).integers(0, 256, (2, 512, 512)).astype(np.uint8)
    volume = np.concatenate([grey] * 15)
    write_volume(folder / "train-volume.tif", volume)
    write_volume(folder / "train-labels.tif", (volume > 60) * np.uint8(255))
    write_volume(folder / "test-volume.tif", volume[::-1])
    return folder


@pytest.fixture(scope="module")
def archive(stacks):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for path in sorted(stacks.iterdir()):
            file.write(path, f"ISBI-2012-challenge/{path.name}")
            file.writestr(f"__MACOSX/._{path.name}", "rubbish")
    return packed.getvalue()


def names(folder: Path) -> list:
    return sorted(path.name for path in folder.iterdir())


def test_from_a_folder(tmp_path, stacks):
    found = isbi2012.fetch(tmp_path, stacks)
    assert list(found) == ["train-volume.tif", "train-labels.tif", "test-volume.tif"]
    assert names(tmp_path) == sorted(found)
    assert np.array_equal(
        read_volume(found["train-labels.tif"]), read_volume(stacks / "train-labels.tif")
    )


def test_stacks_of_other_pixels_stay_unless_asked(tmp_path, stacks):
    shutil.copytree(stacks, tmp_path / "here")
    labels = tmp_path / "here" / "train-labels.tif"
    # The same pixels in another encoding: nothing is lost with them.
    tifffile.imwrite(labels, read_volume(labels), compression="zlib")
    isbi2012.fetch(tmp_path / "here", stacks)
    assert labels.read_bytes() == (stacks / labels.name).read_bytes()
    corrected = read_volume(labels)
    corrected[0, :9] = 0
    write_volume(labels, corrected)
    before = labels.read_bytes()
    with pytest.raises(InputError, match=r"train-labels\.tif: differs from what .* --overwrite"):
        isbi2012.fetch(tmp_path / "here", stacks)
    assert labels.read_bytes() == before
    isbi2012.fetch(tmp_path / "here", stacks, overwrite=True)
    assert labels.read_bytes() == (stacks / labels.name).read_bytes()


def bad_pixels(folder: Path) -> None:
    write_volume(folder / "train-labels.tif", np.full((30, 512, 512), 7, np.uint8))


def bad_page(folder: Path) -> None:
    path = folder / "test-volume.tif"
    path.write_bytes(path.read_bytes()[:-1000])


def missing(folder: Path) -> None:
    (folder / "train-labels.tif").unlink()


@pytest.mark.parametrize("spoil", [bad_pixels, bad_page, missing])
@pytest.mark.parametrize("packs", [False, True])
def test_a_bad_source_leaves_what_is_there(tmp_path, stacks, spoil, packs):
    here, bad = tmp_path / "here", tmp_path / "bad"
    isbi2012.fetch(here, stacks)
    before = files(here)
    shutil.copytree(stacks, bad)
    spoil(bad)
    if packs:
        with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
            for path in bad.iterdir():
                file.write(path, path.name)
        bad = tmp_path / "bad.zip"
    with pytest.raises(InputError, match=f"{bad}"):
        isbi2012.fetch(here, bad)
    assert files(here) == before


def test_a_bad_stack_that_would_stay_beside_the_new_is_told_before(tmp_path, stacks):
    write_volume(tmp_path / "test-labels.tif", np.zeros((3, 4, 5), np.uint8))
    with pytest.raises(InputError, match=r"test-labels\.tif: is uint8 of \(3, 4, 5\)"):
        isbi2012.fetch(tmp_path, stacks)
    assert names(tmp_path) == ["test-labels.tif"]


def test_a_folder_in_place_of_a_stack_is_not_replaced(tmp_path, stacks):
    (tmp_path / "train-volume.tif").mkdir()
    (tmp_path / "train-volume.tif" / "mine.png").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"train-volume\.tif: is a folder"):
        isbi2012.fetch(tmp_path, stacks)
    assert names(tmp_path / "train-volume.tif") == ["mine.png"]


def test_from_the_variable(tmp_path, stacks, monkeypatch):
    monkeypatch.setenv("ISBI_DIR", str(stacks))
    assert len(isbi2012.fetch(tmp_path)) == 3
    # The folder that is both source and target is left as it is.
    assert len(isbi2012.fetch(stacks)) == 3


def test_from_a_zip(tmp_path, stacks, archive):
    (tmp_path / "any.zip").write_bytes(archive)
    found = isbi2012.fetch(tmp_path / "out", tmp_path / "any.zip")
    assert names(tmp_path / "out") == sorted(found)
    for name, path in found.items():
        assert path.read_bytes() == (stacks / name).read_bytes()


def test_downloaded_in_two_pieces_and_then_kept(tmp_path, archive):
    half = len(archive) // 2 // 65536 * 65536
    with server(archive, break_off=(half,)) as (url, seen):
        for _ in range(2):
            assert len(isbi2012.fetch(tmp_path, url=url)) == 3
    assert seen == [None, f"bytes={half}-"]


def test_zip_put_into_the_folder_is_taken(tmp_path, archive):
    (tmp_path / Path(isbi2012.URL).name).write_bytes(archive)
    assert len(isbi2012.fetch(tmp_path)) == 3


@pytest.mark.parametrize("status", [404, 503])
def test_no_data_is_one_sentence_with_address_folder_and_demo(tmp_path, status):
    with server(status=status) as (url, _), pytest.raises(InputError) as caught:
        isbi2012.fetch(tmp_path / "isbi", url=url)
    for needed in (url, str(status), str(tmp_path / "isbi"), "make demo", "train-volume.tif"):
        assert needed in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sources_without_the_stacks(tmp_path):
    with pytest.raises(InputError, match="no such folder or zip"):
        isbi2012.fetch(tmp_path / "out", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"has no train-volume\.tif and no train-labels\.tif"):
        isbi2012.fetch(tmp_path / "out", tmp_path / "empty")


@pytest.mark.parametrize(
    ("name", "stack", "message"),
    [
        ("train-volume.tif", np.zeros((30, 512, 512), np.uint8), "only 1 grey values"),
        ("train-volume.tif", np.zeros((3, 512, 512), np.uint8), "not uint8 of"),
        ("train-labels.tif", np.zeros((30, 512, 512), np.uint16), "is uint16"),
        ("train-labels.tif", np.ones((30, 512, 512), np.uint8), r"labels are 0 and 255, not \[1\]"),
    ],
)
def test_other_stacks_under_these_names(tmp_path, name, stack, message):
    write_volume(tmp_path / name, stack)
    with pytest.raises(InputError, match=message):
        isbi2012.check(tmp_path / name)


def test_made_up_stacks_are_only_plausible(stacks):
    assert isbi2012.check(stacks / "train-volume.tif") == "plausible"


def test_the_real_stacks_pixel_by_pixel(tmp_path, isbi_dir):
    for path in isbi2012.fetch(tmp_path, isbi_dir).values():
        if path.name in isbi2012.PIXELS_SHA256:
            assert isbi2012.check(path) == "verified"


def test_what_is_known_of_the_stacks_is_said(tmp_path, stacks):
    lines = isbi2012.describe(isbi2012.fetch(tmp_path, stacks))
    assert lines[0].startswith(str(tmp_path / "train-volume.tif"))
    assert "no checksum" in lines[0]


def test_zip_bomb(tmp_path, monkeypatch, archive):
    monkeypatch.setattr(isbi2012, "_LARGEST_MEMBER", 1000)
    (tmp_path / "a.zip").write_bytes(archive)
    with pytest.raises(InputError, match="would unpack to"):
        isbi2012.fetch(tmp_path / "out", tmp_path / "a.zip")


def test_zip_that_wants_to_be_elsewhere_is_unpacked_into_the_folder(tmp_path, stacks):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.write(stacks / "train-volume.tif", "../../train-volume.tif")
        file.write(stacks / "train-labels.tif", "/etc/train-labels.tif")
        file.writestr("../evil.txt", "evil")
    isbi2012.fetch(tmp_path / "deep" / "out", tmp_path / "a.zip")
    assert names(tmp_path / "deep" / "out") == ["train-labels.tif", "train-volume.tif"]
    assert names(tmp_path) == ["a.zip", "deep"]
