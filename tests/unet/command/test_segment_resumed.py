"""A segmentation that was stopped goes on where it was, and its outputs show nothing of that."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

import caffe
import unet.model.model
from tests.fuzz.power import Disk, lay_out
from tests.unet.watched import watch
from unet.command import segment
from unet.errors import InputError
from unet.network import nets
from unet.segmentation.progress import Progress, progress_folder
from unet.segmentation.segment import Picture
from unet.volumes import read_volume, write_volume

PROGRAM = Path(__file__).parents[3] / "tools" / "segment.py"
OUTPUTS = ["out.tif", "out.h5", "out.zarr", "out"]
SHAPE = (5, 40, 50)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model folder, of a network of two channels."""
    folder = tmp_path_factory.mktemp("model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(nets.WIDTHS, "tiny", 2)
        (folder / "deploy.prototxt").write_text(str(nets.deploy_net("tiny")))
    caffe.set_mode_cpu()
    caffe.set_random_seed(1)
    net = caffe.Net(str(folder / "deploy.prototxt"), caffe.TEST)
    net.save(str(folder / "weights.caffemodel"))
    return folder


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder, in which there is a stack."""
    monkeypatch.chdir(tmp_path)
    write(pixels())
    return tmp_path


def pixels() -> np.ndarray:
    return np.random.default_rng(0).random(SHAPE, np.float32)


def write(stack: np.ndarray) -> None:
    tifffile.imwrite("stack.tif", stack, photometric="minisblack")


@pytest.fixture
def run(model: Path, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """Return what runs the program here; gives what it printed and how many slices it computed."""
    computed: list[Picture] = []
    watch(monkeypatch, computed.append)

    def call(*words: object) -> tuple[str, int]:
        computed.clear()
        fixed = ["--weights", str(model), "--device", "cpu", "--grey", "0", "1"]
        segment.main(["stack.tif", *fixed, *(str(word) for word in words)])
        return capsys.readouterr().out, len(computed)

    return call


def content(path: str) -> dict[str, bytes]:
    """Return all files of an output."""
    files = [Path(path)] if Path(path).is_file() else sorted(Path(path).rglob("*"))
    return {str(file.relative_to(path)): file.read_bytes() for file in files if file.is_file()}


@pytest.fixture(params=OUTPUTS)
def words(request: pytest.FixtureRequest) -> list[str]:
    """Return what is written, in one format after the other."""
    return ["-o", request.param, "--instances", "cells.tif", "--overlay", "drawn.png"]


def undisturbed(run, words: list[str]) -> list[dict[str, bytes]]:
    """Return what is written without a stop; it is then gone."""
    run(*words)
    found = [content(name) for name in words[1::2]]
    Path("whole").mkdir()
    for name in words[1::2]:
        os.replace(name, Path("whole", name))
    assert not [name for name in os.listdir() if name.startswith(".")]
    return found


KEPT = r"; what is done, 3 blocks, is kept: the same command goes on$"


def test_a_broken_slice_stops_it_and_it_goes_on_when_that_is_mended(run, words):
    whole = undisturbed(run, words)
    broken = pixels()
    broken[3, 5, 5] = np.nan
    write(broken)
    with pytest.raises(InputError, match=rf"stack\.tif: slice 3 holds NaN.*{KEPT}"):
        run(*words)
    assert not any(Path(name).exists() for name in words[1::2] if name != "out.zarr")
    write(pixels())
    printed, computed = run(*words)
    assert "going on: 3 of 5 blocks are done" in printed
    assert computed == 2
    assert [content(name) for name in words[1::2]] == whole
    assert not [name for name in os.listdir() if name.startswith(".")]


def test_after_kill_9_what_was_done_is_not_computed_again(run, model, words):
    whole = undisturbed(run, words)
    folder = progress_folder(words[1])
    fixed = ["--weights", str(model), "--device", "cpu", "--grey", "0", "1"]
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), "stack.tif", *fixed, *words], stdout=subprocess.DEVNULL
    )
    while process.poll() is None and not list(folder.glob("blocks/[0-9]*")):
        time.sleep(0.001)
    process.kill()
    killed = process.wait() == -signal.SIGKILL
    done = len(list(folder.glob("blocks/[0-9]*")))
    _, computed = run(*words)
    assert computed == SHAPE[0] - done if killed or done else SHAPE[0]
    assert [content(name) for name in words[1::2]] == whole
    assert not [name for name in os.listdir() if name.startswith(".")]


def stopped_after(number: int, monkeypatch: pytest.MonkeyPatch, run, *words: str) -> None:
    """Run until so many slices are done, then stop as Ctrl-C does."""
    real = Progress.put

    def put(self: Progress, computed: list) -> None:
        # As many as are put together, but no more.
        room = number - self.count()
        real(self, computed[:room])
        if len(computed) > room:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "put", put)
        with pytest.raises(KeyboardInterrupt):
            run(*words)


def test_ctrl_c_says_that_the_same_command_goes_on(run, monkeypatch, capsys):
    stopped_after(2, monkeypatch, run, "-o", "out.tif")
    assert "what is done, 2 blocks, is kept: the same command goes on\n" in capsys.readouterr().err
    assert run("-o", "out.tif")[1] == 3


def test_what_was_there_before_stays_until_the_new_is_whole(run, monkeypatch):
    run("-o", "out.tif", "--tta", "mirror")
    before = content("out.tif")
    stopped_after(4, monkeypatch, run, "-o", "out.tif")
    assert content("out.tif") == before
    run("-o", "out.tif")
    assert content("out.tif") != before


@pytest.mark.parametrize("name", ["out.tif", "out.zarr"])
def test_other_options_are_refused_and_lose_nothing_unless_told_to_begin_anew(
    run, monkeypatch, name
):
    run("-o", f"whole-{name}")
    stopped_after(4, monkeypatch, run, "-o", name)
    told = (
        rf"^{name}: an earlier run has done 4 blocks of it by other options \(tta none, now "
        r"mirror; probabilities float32, now uint8\): give those to go on, or --overwrite to begin "
        r"anew$"
    )
    other = ["-o", name, "--tta", "mirror", "--dtype", "uint8"]
    with pytest.raises(InputError, match=told):
        run(*other)
    assert run("-o", name)[1] == SHAPE[0] - 4
    assert content(name) == content(f"whole-{name}")
    shutil.rmtree(name) if Path(name).is_dir() else os.unlink(name)
    run(*["-o", f"other-{name}"], *other[2:])
    stopped_after(4, monkeypatch, run, "-o", name)
    printed, computed = run(*other, "--overwrite")
    assert "now uint8): begun anew\n" in printed
    # Four versions of each slice, in one call.
    assert computed == SHAPE[0]
    np.testing.assert_array_equal(read_volume(name), read_volume(f"other-{name}"))
    assert not [name for name in os.listdir() if name.startswith(".")]


def test_other_options_of_the_tiles_and_the_network_are_told_by_name(run, monkeypatch, model):
    stopped_after(1, monkeypatch, run, "-o", "out.tif")
    with pytest.raises(InputError, match=r"1 block of it .*\(tile none, now \[204, 204\]\)"):
        run("-o", "out.tif", "--tile", "204")
    Path("other").mkdir()
    Path("other", "deploy.prototxt").write_text((model / "deploy.prototxt").read_text() + "\n")
    shutil.copy(model / "weights.caffemodel", "other")
    with pytest.raises(InputError, match=r"\(other network\): give those"):
        run("-o", "out.tif", "--weights", "other")


@pytest.mark.parametrize("name", ["cells.tif", "cells.h5", "cells.zarr"])
def test_a_wider_type_for_cells_costs_nothing_but_in_a_growing_zarr(run, monkeypatch, name):
    wide = ["--instance-dtype", "uint32"]
    run("--instances", f"whole-{name}", *wide)
    stopped_after(3, monkeypatch, run, "--instances", name)
    if name.endswith(".zarr"):
        with pytest.raises(InputError, match=r"\(instances uint16, now uint32\)"):
            run("--instances", name, *wide)
        wide.append("--overwrite")
    _, computed = run("--instances", name, *wide)
    assert computed == (SHAPE[0] if name.endswith(".zarr") else 2)
    cells = read_volume(name)
    assert cells.dtype == np.uint32 and cells.max() > 0
    np.testing.assert_array_equal(cells, read_volume(f"whole-{name}"))


def test_slices_that_have_changed_meanwhile_are_computed_again(run, monkeypatch):
    stopped_after(4, monkeypatch, run, "-o", "out.tif")
    changed = pixels()
    changed[2] = changed[2, ::-1]
    write(changed)
    printed, computed = run("-o", "out.tif")
    assert "slices 2 have changed since they were computed: computed again\n" in printed
    assert computed == 2
    run("-o", "whole.tif")
    assert content("out.tif") == content("whole.tif")


def test_the_tile_stays_that_of_the_run_that_began(run, monkeypatch):
    write_volume("stack.tif", np.random.default_rng(1).random((3, 60, 200), np.float32))
    little = ["-o", "out.tif", "--memory", "0.0028"]
    stopped_after(1, monkeypatch, run, *little)
    printed, computed = run("-o", "out.tif")
    assert "5 tiles of" in printed
    assert computed == 2
    run("-o", "whole.tif", *little[2:])
    assert content("out.tif") == content("whole.tif")
    # One that no longer fits gives way.
    stopped_after(1, monkeypatch, run, "-o", "out.tif")
    printed, computed = run("-o", "out.tif", "--memory", "0.0024")
    assert "26 tiles of" in printed
    assert computed == 2


def test_a_second_program_on_one_output_is_refused(run):
    said = r"^out\.tif: another program is writing it; wait"
    with Progress.open("out.tif", {}), pytest.raises(InputError, match=said):
        run("-o", "out.tif")


def test_a_full_disk_stops_it_and_it_goes_on_when_there_is_room(run, small_disk):
    run("-o", "whole.tif")
    output = small_disk / "out.tif"
    status = os.statvfs(small_disk)
    (small_disk / "filling").write_bytes(bytes(status.f_bavail * status.f_frsize - 60_000))
    with pytest.raises(InputError, match=r"the disk is full; .* is kept: the same command goes on"):
        run("-o", output)
    (small_disk / "filling").unlink()
    assert run("-o", output)[1] < SHAPE[0]
    assert output.read_bytes() == Path("whole.tif").read_bytes()
    assert os.listdir(small_disk) == ["out.tif"]


def test_a_vanished_stack_stops_it_and_it_goes_on_when_it_is_back(run, monkeypatch):
    for z, image in enumerate(pixels()):
        Path("frames").mkdir(exist_ok=True)
        tifffile.imwrite(f"frames/{z}.tif", image)
    os.unlink("stack.tif")
    os.symlink("frames", "stack.tif")
    run("-o", "whole.tif")
    real = Progress.put

    def put(self: Progress, computed: list) -> None:
        if self.count() and not os.path.exists("elsewhere"):
            os.rename("frames", "elsewhere")
        real(self, computed)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "put", put)
        with pytest.raises(InputError, match="is kept: the same command goes on"):
            run("-o", "out.tif")
    os.rename("elsewhere", "frames")
    assert 0 < run("-o", "out.tif")[1] < SHAPE[0]
    assert content("out.tif") == content("whole.tif")


def test_a_zarr_grows_under_its_name_and_says_how_far_it_is(run, monkeypatch):
    zarr = pytest.importorskip("zarr")
    run("-o", "whole.zarr")
    stopped_after(3, monkeypatch, run, "-o", "out.zarr")
    begun = zarr.open_group("out.zarr", mode="r")
    assert begun.attrs["complete"] is False
    assert begun.attrs["done"] == [3, 5]
    whole = zarr.open_group("whole.zarr", mode="r")
    np.testing.assert_array_equal(begun["0"][:3], whole["0"][:3])
    # It lies there alone: what is in it is not kept twice.
    files = [file for file in progress_folder("out.zarr").rglob("*") if file.is_file()]
    kept = sum(file.stat().st_size for file in files)
    assert kept < 3 * SHAPE[1] * SHAPE[2]
    # As of kills while zarr was writing.
    for name in ("zarr", "0/zarr", "0/c/0/0/0"):
        Path(f"out.zarr/{name}.0123456789abcdef.partial").touch()
    assert run("-o", "out.zarr")[1] == 2
    assert content("out.zarr") == content("whole.zarr")


def test_what_a_kill_left_of_making_a_zarr_is_swept_away(run, monkeypatch):
    stopped_after(3, monkeypatch, run, "-o", "out.zarr")
    Path(".out.zarr.0123abcd.part").mkdir()
    Path(".out.zarr.0123abcd.part", "parts.json").write_text('{"out.zarr": 1}')
    assert run("-o", "out.zarr")[1] == 2
    assert not [name for name in os.listdir() if name.startswith(".")]


def test_a_zarr_that_was_removed_is_begun_anew(run, monkeypatch):
    run("-o", "whole.zarr")
    stopped_after(3, monkeypatch, run, "-o", "out.zarr")
    shutil.rmtree("out.zarr")
    assert run("-o", "out.zarr")[1] == SHAPE[0]
    assert content("out.zarr") == content("whole.zarr")


def test_a_zarr_that_is_there_stays_until_the_new_is_whole(run, monkeypatch):
    run("-o", "out.zarr", "--tta", "mirror")
    before = content("out.zarr")
    stopped_after(3, monkeypatch, run, "-o", "out.zarr")
    assert content("out.zarr") == before
    run("-o", "out.zarr")
    run("-o", "whole.zarr")
    assert content("out.zarr") == content("whole.zarr")


def test_slices_in_parts_go_on_in_the_parts_of_the_run_that_began(run, words, monkeypatch):
    run("-o", "slices.h5")
    # Of noise: so that there are many.
    cells = ["--threshold", str(np.quantile(read_volume("slices.h5"), 0.7))]
    run("--instances", "slices.tif", *cells)
    with monkeypatch.context() as patch:
        patch.setattr(unet.model.model, "choose_block", lambda *_: (32, 32))
        whole = undisturbed(lambda *given: run(*given, *cells), words)
        stopped_after(6, monkeypatch, run, *words, *cells)
    printed, computed = run(*words, *cells)
    assert "going on: 6 of 20 blocks are done" in printed
    assert computed == 14
    assert [content(name) for name in words[1::2]] == whole
    given = read_volume("cells.tif")
    assert given.max() > 9
    # Cells go over the edges of parts; scores differ by rounding.
    assert ((given > 0) != (read_volume("slices.tif") > 0)).mean() < 0.01
    assert (given != read_volume("slices.tif")).mean() < 0.1


@pytest.fixture
def one_worker(monkeypatch):
    """Have this process do what a worker does, to its end."""
    real = Progress.join

    def compute_here(opener, blocks, devices, *, told) -> None:
        with contextlib.ExitStack() as joined, monkeypatch.context() as patch:
            patch.setattr(Progress, "join", lambda output: joined.enter_context(real(output)))
            compute = opener("cpu")
            for block in blocks:
                compute(block)
                told()

    monkeypatch.setattr("unet.model.segment_files.compute_by_workers", compute_here)


def test_workers_write_into_a_zarr_that_grows_and_what_they_wrote_lies_there_alone(
    run, one_worker, monkeypatch
):
    zarr = pytest.importorskip("zarr")
    run("-o", "whole.zarr")
    stopped_after(3, monkeypatch, run, "-o", "out.zarr", "--workers=2")
    begun, whole = (zarr.open_group(name, mode="r") for name in ("out.zarr", "whole.zarr"))
    assert begun.attrs["complete"] is False
    assert begun.attrs["done"] == [3, 5]
    np.testing.assert_array_equal(begun["0"][:3], whole["0"][:3])
    files = [file for file in progress_folder("out.zarr").rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 3 * SHAPE[1] * SHAPE[2]
    assert run("-o", "out.zarr", "--workers=2")[1] == 2
    assert content("out.zarr") == content("whole.zarr")


@pytest.fixture
def cut_at_every_sync(run, work, monkeypatch, tmp_path_factory):
    """Return what cuts the power at syncs of a run, and has it go on with what is on the disk."""

    def check(words: list[str], whole: list, names_are_there: bool) -> None:
        disk, cuts, marked = Disk(work), [], 0
        real = Progress.put

        def put(self: Progress, computed: list) -> None:
            nonlocal marked
            real(self, computed)
            marked += len(computed)

        def fsync(handle: int) -> None:
            disk.fsync(handle)
            cuts.append((marked, disk.after_power_cut(names_are_there)))

        with monkeypatch.context() as patch, contextlib.closing(disk):
            patch.setattr(Progress, "put", put)
            patch.setattr(os, "fsync", fsync)
            run(*words)
        assert marked == SHAPE[0]
        assert len(cuts) > 2 * SHAPE[0]
        places = tmp_path_factory.mktemp("cuts")
        for number in sorted({*range(0, len(cuts), len(cuts) // 5), len(cuts) - 1}):
            done, found = cuts[number]
            lay_out(places / str(number), found)
            monkeypatch.chdir(places / str(number))
            _, computed = run(*words)
            assert computed <= SHAPE[0] - done
            assert [content(path) for path in words[1::2]] == whole
            assert not [name for name in os.listdir() if name.startswith(".")]

    return check


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("names_are_there", [False, True], ids=["no name is", "all names are"])
def test_when_the_power_has_gone_it_goes_on_with_all_that_was_marked(
    run, one_worker, cut_at_every_sync, name, names_are_there
):
    words = ["-o", name, "--classes", "classes.tif", "--workers=2"]
    cut_at_every_sync(words, undisturbed(run, words), names_are_there)


@pytest.mark.parametrize("name", ["out.tif", "out.zarr"])
@pytest.mark.parametrize("names_are_there", [False, True], ids=["no name is", "all names are"])
def test_so_it_does_where_slices_are_marked_together(
    run, cut_at_every_sync, monkeypatch, name, names_are_there
):
    words = ["-o", name, "--classes", "classes.tif"]
    whole = undisturbed(run, words)

    @contextlib.contextmanager
    def in_two_batches(function, late):
        items = []
        yield items.append
        for some in (items[:3], items[3:]):
            function(some)

    monkeypatch.setattr("unet.segmentation.write.behind", in_two_batches)
    cut_at_every_sync(words, whole, names_are_there)


@pytest.mark.parametrize("form", [2, 3])
def test_chunks_that_vanish_are_not_taken_for_black_slices(model, work, monkeypatch, capsys, form):
    zarr = pytest.importorskip("zarr")
    chunks = {"shape": SHAPE, "chunks": (1, *SHAPE[1:]), "dtype": "f4", "zarr_format": form}
    zarr.create_array("stack.zarr", **chunks)[...] = pixels()
    words = ["stack.zarr", "--weights", str(model), "--device", "cpu", "--grey", "0", "1", "-o"]
    segment.main([*words, "whole.tif"])
    shutil.copytree("stack.zarr", "kept", copy_function=shutil.copy2)
    gone = [
        path for path in Path("stack.zarr").rglob("*") if path.is_file() and path.suffix != ".json"
    ]
    chunk = sorted(path for path in gone if "attrs" not in path.name and "array" not in path.name)[
        3
    ]

    def lose(picture: Picture) -> None:
        chunk.unlink(missing_ok=True)

    with monkeypatch.context() as patch:
        watch(patch, lose)
        with pytest.raises(InputError, match=r"stack\.zarr: has changed, or parts of it are gone"):
            segment.main([*words, "out.tif"])
    assert not Path("out.tif").exists()
    shutil.rmtree("stack.zarr")
    shutil.copytree("kept", "stack.zarr", copy_function=shutil.copy2)
    segment.main([*words, "out.tif"])
    np.testing.assert_array_equal(read_volume("out.tif"), read_volume("whole.tif"))


def test_what_else_is_written_into_the_folder_of_a_stack_is_no_change(model, work, monkeypatch):
    Path("slices").mkdir()
    for z, image in enumerate(pixels()):
        tifffile.imwrite(f"slices/z{z}.tif", image)
    Path("slices/.DS_Store").write_text("before")

    def note(picture: Picture) -> None:
        for name in (".DS_Store", "notes.txt"):
            Path("slices", name).write_text("seen since")

    watch(monkeypatch, note)
    words = ["--weights", str(model), "--device", "cpu", "--grey", "0", "1"]
    segment.main(["slices", *words, "-o", "out.tif"])
    assert read_volume("out.tif").shape == SHAPE
