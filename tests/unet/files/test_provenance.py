"""What the programs wrote may be replaced; what anybody else wrote, or has added to, may not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.unet.noise_set import write_noise_set
from unet.errors import InputError
from unet.files.atomic import atomic_path
from unet.files.provenance import (
    KEY,
    NETWORK,
    PICTURE,
    RESULT,
    SCORE_FILE,
    STACK,
    TRAINING_SET,
    mark,
    may_replace,
    refuse_foreign,
)
from unet.network.nets import deploy_net, write_files
from unet.report.plots import save_overlay
from unet.tracking.ctc_format import Track, write_masks
from unet.volumes import write_volume
from unet.volumes.intensity import input_text
from unet.volumes.writers.layout import Layout
from unet.volumes.writers.ome_zarr import create_store, open_store

SLICES = np.arange(2 * 5 * 6, dtype=np.uint8).reshape(2, 5, 6)


def write_scores(path: Path) -> None:
    """Write what tools/evaluate.py does."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({KEY: mark(SCORE_FILE), "SEG": 0.5}))


WRITERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a.tif": (STACK, lambda path: write_volume(path, SLICES)),
    "narrow.tif": (STACK, lambda path: write_volume(path, SLICES[:, :, :1])),
    "wide.tif": (STACK, lambda path: write_volume(path, SLICES.astype(np.float64))),
    "a.h5": (STACK, lambda path: write_volume(path, SLICES)),
    "a.zarr": (STACK, lambda path: write_volume(path, SLICES)),
    "a.png": (STACK, lambda path: write_volume(path, SLICES[:1])),
    "folder": (STACK, lambda path: write_volume(path, SLICES)),
    "set.h5": (TRAINING_SET, write_noise_set),
    "overlay.png": (
        PICTURE,
        lambda path: save_overlay(path, np.zeros((1, 5, 6)), np.zeros((2, 5, 6))),
    ),
    "02_RES": (RESULT, lambda path: write_masks(path, SLICES, [Track(1, 0, 1, 0)])),
    "scores.json": (SCORE_FILE, write_scores),
    "net/net.prototxt": (
        NETWORK,
        lambda path: write_files({path.name: deploy_net("unet_slim")}, path.parent),
    ),
    "net/input.json": (
        NETWORK,
        lambda path: write_files({path.name: input_text(True)}, path.parent),
    ),
}
KINDS = (STACK, TRAINING_SET, PICTURE, RESULT, SCORE_FILE, NETWORK)


@pytest.mark.parametrize("name", WRITERS)
def test_what_a_program_wrote_may_be_replaced_by_its_kind_alone(tmp_path, name):
    if name.endswith("zarr"):
        pytest.importorskip("zarr")
    kind, write = WRITERS[name]
    path = tmp_path / name
    assert all(may_replace(path, other) for other in KINDS)
    write(path)
    assert [other for other in KINDS if may_replace(path, other)] == [kind]
    write(path)


def test_a_network_written_before_the_command_had_its_name_may_be_replaced(repository):
    deploy = repository / "models" / "isbi2012_slim" / "deploy.prototxt"
    assert [kind for kind in KINDS if may_replace(deploy, kind)] == [NETWORK]


@pytest.fixture(params=[2, 3])
def form(request: pytest.FixtureRequest) -> dict[str, int]:
    """Return what makes Zarr write its version 2 or 3."""
    zarr = pytest.importorskip("zarr")
    if zarr.__version__.startswith("2."):
        if request.param == 3:
            pytest.skip("zarr 2, the newest for Python 3.10, has no format 3")
        return {}
    return {"zarr_format": request.param}


def test_a_zarr_group_is_not_an_array(tmp_path, form):
    import zarr

    path = str(tmp_path / "g.zarr")
    zarr.open_group(path, mode="w", **form).attrs[KEY] = mark(STACK)
    zarr.open(path, path="0", mode="w", shape=(2, 3), chunks=(1, 3), dtype="u1", **form)[...] = 1
    assert not may_replace(path, STACK)
    with pytest.raises(InputError, match=r"g.zarr: exists, and is not a stack"):
        write_volume(path, SLICES)
    assert zarr.open(path, mode="r")["0"].shape == (2, 3)


def test_an_array_of_either_version_of_zarr(tmp_path, form):
    import zarr

    path = tmp_path / "a.zarr"
    array = zarr.open(str(path), mode="w", shape=(20, 6), chunks=(1, 6), dtype="u1", **form)
    array[...] = 1
    assert not may_replace(path, STACK)
    array.attrs[KEY] = mark(STACK)
    assert may_replace(path, STACK)
    (path / "labels").mkdir()
    assert not may_replace(path, STACK)


@pytest.mark.parametrize("added", ["notes.txt", "labels/.zgroup", "0/notes.txt", "7/zarr.json"])
def test_an_ome_zarr_image_to_which_something_was_added(tmp_path, form, added):
    path = tmp_path / "a.zarr"
    write_volume(path, np.zeros((1, 600, 5), np.uint8), **form)
    assert may_replace(path, STACK)
    (path / added).parent.mkdir(exist_ok=True)
    (path / added).write_text("{}")
    assert not may_replace(path, STACK)


def test_what_a_kill_leaves_of_an_ome_zarr_image(tmp_path, form):
    path = tmp_path / "a.zarr"
    layout = Layout(path, SLICES.shape, SLICES.dtype, **form)
    create_store(path, layout)
    assert may_replace(path, STACK)
    open_store(path, layout)(0, slice(0, 5), slice(0, 6), SLICES[0])
    chunk = next(file for file in (path / "0").rglob("0") if file.is_file())
    chunk.with_suffix(".0123456789abcdef.partial").write_bytes(b"torn")
    assert may_replace(path, STACK)
    write_volume(path, SLICES, **form)
    assert list(path.rglob("*.partial")) == []


@pytest.mark.parametrize("name", ["a.zarr", "folder", "02_RES"])
def test_a_folder_to_which_something_was_added(tmp_path, name):
    if name.endswith("zarr"):
        pytest.importorskip("zarr")
    kind, write = WRITERS[name]
    write(tmp_path / name)
    (tmp_path / name / ".DS_Store").write_text("where the window was")
    assert may_replace(tmp_path / name, kind)
    (tmp_path / name / "notes.txt").write_text("mine")
    assert not may_replace(tmp_path / name, kind)


@pytest.mark.parametrize(
    ("folder", "file"), [("folder", "slice_0001.png"), ("02_RES", "mask001.tif")]
)
def test_a_folder_in_which_a_file_was_corrected_by_hand(tmp_path, folder, file):
    kind, write = WRITERS[folder]
    write(tmp_path / folder)
    path = tmp_path / folder / file
    if path.suffix == ".png":
        Image.fromarray(SLICES[0]).save(path)
    else:
        tifffile.imwrite(path, SLICES[0])
    assert not may_replace(tmp_path / folder, kind)


@pytest.mark.parametrize("name", ["a.h5", "set.h5"])
def test_an_hdf5_file_to_which_a_dataset_was_added(tmp_path, name):
    kind, write = WRITERS[name]
    write(tmp_path / name)
    with h5py.File(tmp_path / name, "r+") as file:
        file["corrected"] = SLICES
    assert not may_replace(tmp_path / name, kind)


def test_what_others_wrote(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", SLICES, imagej=True)
    Image.fromarray(SLICES[0]).save(tmp_path / "a.png")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["volume"] = SLICES
    (tmp_path / "a.json").write_text('{"software": "another"}')
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "net.prototxt").write_text('name: "n"')
    (tmp_path / "input.json").write_text('{"normalise": true, "by": "me"}')
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "torn.tif").write_bytes(b"II*\0torn")
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\ntorn")
    (tmp_path / "torn.h5").write_bytes(b"\x89HDF\r\n\x1a\ntorn")
    (tmp_path / "tracks").mkdir()
    (tmp_path / "tracks" / "res_track.txt").write_text("1 0 1 0\n")
    for path in tmp_path.iterdir():
        for kind in KINDS:
            assert not may_replace(path, kind), path
            with pytest.raises(InputError, match=f"{path.name}: exists, and is not a {kind}"):
                refuse_foreign(path, kind)


def test_nothing_is_lost_with_an_empty_file_or_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.tif").touch()
    assert may_replace(tmp_path / "empty", STACK)
    assert may_replace(tmp_path / "empty.tif", STACK)


def test_the_mark_of_another_version(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({KEY: "unet-in-caffe 99.1, file of scores"}))
    (tmp_path / "b.json").write_text(json.dumps({KEY: "unet-in-caffe 99.1, file of scores, mine"}))
    assert may_replace(tmp_path / "a.json", SCORE_FILE)
    assert not may_replace(tmp_path / "b.json", SCORE_FILE)
