"""What of a run is done: only what is safe counts, one program has it, changes are noticed."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from unet.errors import InputError
from unet.segmentation.blocks import Block, blocks_of
from unet.segmentation.progress import Computed, Progress, identity_of, progress_folder

BLOCKS = blocks_of(range(3), (4, 6), (4, 3))
STACK = np.arange(72, dtype=np.uint8).reshape(3, 4, 6)


def region(z, rows, columns):
    return STACK[z, rows, columns]


def put(progress: Progress, block: Block) -> None:
    pixels = region(*block)
    arrays = {"half": pixels / np.float32(2), "odd": pixels % 2 == 1}
    progress.put([Computed(block, arrays, pixels)])


def killed(output, **options) -> None:
    """Begin a run of which two blocks are done, and leave it as a kill does."""
    progress = Progress.open(output, {"tta": "none"}, **options)
    for block in BLOCKS[:2]:
        put(progress, block)
    os.close(progress._lock)


def test_a_run_goes_on_with_what_is_done(tmp_path):
    killed(tmp_path / "out.tif", chosen={"tile": [204, 220]})
    with Progress.open(tmp_path / "out.tif", {"tta": "none"}, chosen={"tile": [1, 2]}) as progress:
        assert [progress.done(block) for block in BLOCKS] == [True] * 2 + [False] * 4
        assert progress.count() == 2
        assert progress.chosen == {"tile": [204, 220]}
        given = progress.get(BLOCKS[1])
        assert set(given) == {"half", "odd"}
        np.testing.assert_array_equal(given["half"], STACK[0, :, 3:] / np.float32(2))
        np.testing.assert_array_equal(given["odd"], STACK[0, :, 3:] % 2 == 1)
        assert [given[name].dtype.name for name in ("half", "odd")] == ["float32", "bool"]
        progress.finish()
    assert os.listdir(tmp_path) == []


def test_what_another_run_has_done_is_dropped_only_where_that_is_said(tmp_path):
    output = tmp_path / "out.tif"
    killed(output)
    done = "an earlier run has done 2 blocks of it by other options"
    for other, told in (
        ({"tta": "mirror"}, "tta none, now mirror"),
        ({"tta": "none", "slices": [0, 3, 1]}, r"slices none, now \[0, 3, 1\]"),
        ({"tta": "none", "weights": "0" * 64}, "other weights"),
    ):
        with pytest.raises(InputError, match=rf"out\.tif: {done} \({told}\): .* --overwrite"):
            Progress.open(output, other)
    with Progress.open(output, {"tta": "none"}) as progress:
        assert progress.count() == 2
    with Progress.open(output, {"tta": "mirror"}, anew=True) as progress:
        assert progress.count() == 0
        assert progress.anew == f"{done} (tta none, now mirror): begun anew"
    assert os.listdir(tmp_path) == []


def test_blocks_are_put_together_with_one_sync_of_the_folder(tmp_path, monkeypatch):
    synced, real = [], os.fsync

    def fsync(handle):
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        real(handle)

    with Progress.open(tmp_path / "out.tif", {}) as progress:
        monkeypatch.setattr(os, "fsync", fsync)
        progress.put(
            [Computed(block, {"pixels": region(*block)}, region(*block)) for block in BLOCKS]
        )
        folder = str(progress_folder(tmp_path / "out.tif") / "blocks")
        assert synced[-1] == folder and synced.count(folder) == 1
        assert len(synced) == len(BLOCKS) + 1
        for block in BLOCKS:
            np.testing.assert_array_equal(progress.get(block)["pixels"], region(*block))


def test_of_blocks_put_together_those_before_a_fault_are_done(tmp_path):
    with pytest.raises(InputError, match="2 blocks, is kept"):  # noqa: SIM117
        with Progress.open(tmp_path / "out.tif", {}) as progress:
            pixels = [region(*block) for block in BLOCKS]
            done = [Computed(block, {"one": one}, one) for block, one in zip(BLOCKS, pixels)]
            # What cannot be written is told as a disk's fault is.
            progress.put([*done[:2], Computed(BLOCKS[2], {"one": Full()}, pixels[2]), *done[3:]])
    with Progress.open(tmp_path / "out.tif", {}) as progress:
        assert [progress.done(block) for block in BLOCKS] == [True] * 2 + [False] * 4
        assert not [name for name in os.listdir(progress.folder / "blocks") if name[0] == "."]


class Full:
    """An array that a disk has no room for."""

    def __array__(self, *_: object, **__: object):
        raise OSError(28, "No space left on device")


def test_nothing_is_left_where_nothing_was_done(tmp_path):
    with pytest.raises(KeyError), Progress.open(tmp_path / "new" / "deep" / "out.tif", {}):
        assert (tmp_path / "new" / "deep").is_dir()
        raise KeyError
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", [InputError, OSError, MemoryError])
def test_a_mistake_keeps_what_is_done_and_says_so(tmp_path, kind):
    said = "^broken; what is done, 1 block, is kept: the same command goes on$"
    with (
        pytest.raises((InputError, MemoryError), match=said),
        Progress.open(tmp_path / "out.tif", {}) as progress,
    ):
        put(progress, BLOCKS[0])
        raise kind("broken")
    with Progress.open(tmp_path / "out.tif", {}) as progress:
        assert progress.done(BLOCKS[0])


def test_a_second_program_is_refused(tmp_path):
    output = tmp_path / "out.tif"
    with Progress.open(output, {}) as progress:
        with pytest.raises(InputError, match=r"out\.tif: another program is writing it; wait"):
            Progress.open(output, {})
        put(progress, BLOCKS[0])
        # Nor is anything lost by the attempt.
        assert progress.done(BLOCKS[0])


def test_workers_hold_the_folder_when_their_program_was_killed(tmp_path):
    output = tmp_path / "out.tif"
    killed(output)
    with Progress.join(output) as worker:
        put(worker, BLOCKS[2])
        with pytest.raises(InputError, match="another program is writing it"):
            Progress.open(output, {"tta": "none"})
    with Progress.open(output, {"tta": "none"}) as progress:
        assert progress.count() == 3
        progress.finish()
    with pytest.raises(InputError, match="no program is writing it"):
        Progress.join(output)


def test_several_processes_put_at_once(tmp_path):
    program = (
        "import sys; from tests.unet.segmentation.test_progress import *\n"
        "with Progress.join(sys.argv[1]) as worker:\n"
        "    for block in BLOCKS[int(sys.argv[2]) :: 2]: put(worker, block)"
    )
    output = str(tmp_path / "out.tif")
    with Progress.open(output, {}) as progress:
        workers = [
            subprocess.Popen([sys.executable, "-c", program, output, number]) for number in "01"
        ]
        assert [worker.wait() for worker in workers] == [0, 0]
        for block in BLOCKS:
            half = progress.get(block)["half"]
            np.testing.assert_array_equal(half, region(*block) / np.float32(2))


@pytest.mark.parametrize("where", [0, 40, -1])
@pytest.mark.parametrize("how", ["cut", "flipped"])
def test_a_damaged_block_is_told_and_counts_no_more(tmp_path, where, how):
    killed(tmp_path / "out.tif")
    with Progress.open(tmp_path / "out.tif", {"tta": "none"}) as progress:
        path = progress._place(BLOCKS[0])
        content = bytearray(path.read_bytes())
        content[where] ^= 1
        path.write_bytes(content[:where] if how == "cut" else content)
        with pytest.raises(InputError, match="is damaged, so slice 0 is to be computed again"):
            progress.get(BLOCKS[0])
        assert [progress.done(block) for block in BLOCKS[:2]] == [False, True]


def test_slices_that_have_changed_are_computed_again(tmp_path):
    progress = Progress.open(tmp_path / "out.tif", {}, identity="a")
    for block in BLOCKS:
        put(progress, block)
    os.close(progress._lock)
    changed = STACK.copy()
    changed[1, 0, 5] ^= 1
    with Progress.open(tmp_path / "out.tif", {}, identity="b") as progress:
        assert not progress.is_same_stack
        found = progress.drop_changed(BLOCKS, lambda z, *part: changed[(z, *part)], "b")
        assert found == [1]
        # Both blocks: the first looks over its edge.
        assert [progress.done(block) for block in BLOCKS] == [True] * 2 + [False] * 2 + [True] * 2
    with Progress.open(tmp_path / "out.tif", {}, identity="b") as progress:
        assert progress.is_same_stack


def test_a_stack_is_known_by_its_files(tmp_path):
    (tmp_path / "stack").mkdir()
    for name in "ab":
        (tmp_path / "stack" / name).write_text(name)
    before = identity_of(tmp_path / "stack")
    assert identity_of(tmp_path / "stack") == before
    (tmp_path / "stack" / "b").write_text("c")
    os.utime(tmp_path / "stack" / "b", ns=(0, 0))
    assert identity_of(tmp_path / "stack") != before
    (tmp_path / "moved").mkdir()
    assert identity_of(tmp_path / "moved") != before


def test_what_a_kill_left_of_a_beginning_or_an_end_is_begun_anew(tmp_path):
    killed(tmp_path / "out.tif")
    folder = progress_folder(tmp_path / "out.tif")
    (folder / "run.json").unlink()
    with Progress.open(tmp_path / "out.tif", {"tta": "none"}) as progress:
        assert progress.count() == 0
        assert progress.anew == ""


def test_long_names_have_folders_of_their_own(tmp_path):
    names = ["ä" * 120 + end + ".tif" for end in ("a", "b")]
    folders = {progress_folder(tmp_path / name) for name in names}
    assert len(folders) == 2
    for name in names:
        killed(tmp_path / name)
        with Progress.open(tmp_path / name, {"tta": "none"}) as progress:
            progress.finish()
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_a_sentence_and_what_was_done_stays(small_disk):
    output = small_disk / "out.tif"
    room = np.zeros((200, 400), np.uint8)
    blocks = blocks_of(range(5), room.shape, room.shape)
    said = r"out\.tif: cannot be written: the disk is full; .*; what is done, \d blocks?, is kept"
    with pytest.raises(InputError, match=said), Progress.open(output, {}) as progress:
        for block in blocks:
            progress.put([Computed(block, {"pixels": room}, room)])
    with Progress.open(output, {}) as progress:
        assert 0 < progress.count() < len(blocks)
        for block in blocks[: progress.count()]:
            np.testing.assert_array_equal(progress.get(block)["pixels"], room)
        progress.finish()
    assert os.listdir(small_disk) == []
